"""Short files that random editing begins with: by path, in two languages, with odd characters."""

TEXTS = {
    "shop/cart.py": '''from dataclasses import dataclass


@dataclass
class Cart:
    """Süße Sachen 🍰 ▁."""

    items: list[str]

    def total(self, prices):
        amount = 0
        for item in self.items:
            amount += prices[item]
        return amount

    def add(self, item):
\t    self.items.append(item)

    def remove(self, item):
        if item not in self.items:
            raise KeyError(f"{item!r} is not in this cart of {len(self.items)} items")
        self.items.remove(item)

    def __len__(self):
        return len(self.items)

    def sorted_by_price(self, prices, *, descending=False):
        """Give the items, the cheapest first unless told otherwise."""
        return sorted(self.items, key=prices.__getitem__, reverse=descending)


def merged(first, second):
    return Cart([*first.items, *second.items])
''',
    # Begins as the first one does.
    "shop/order.py": '''from dataclasses import dataclass


@dataclass
class Order:
    cart: Cart
    paid_at: float = 0.0

    def pay(self, now):
        if self.paid_at:
            raise ValueError("paid already")
        self.paid_at = now

    def days_since(self, now):
        return (now - self.paid_at) / 86_400

    def is_late(self, now, days=14):
        """Tell whether nobody has paid for too long a time."""
        return not self.paid_at and self.days_since(now) > days
''',
    "web/cart.ts": """export function total(cart: Cart): number {
  let amount = 0;
  for (const item of cart.items) {
    amount += prices.get(item) ?? 0;\r
  }
  return amount;
}

export const empty: Cart = { items: [] };

export function added(cart: Cart, item: string): Cart {
  return { ...cart, items: [...cart.items, item] };
}
""",
}
