// StyLua over every Lua file here, by stylua.toml; `--write` formats, else what differs is named.
const fs = require("node:fs");
const path = require("node:path");
const stylua = require("@johnnymorganz/stylua");

const options = Object.fromEntries(
  [...fs.readFileSync(path.join(__dirname, "stylua.toml"), "utf8").matchAll(/^(\w+) = "?(\w+)"?$/gm)].map(
    ([, name, value]) => [name, value],
  ),
);

function config() {
  const made = stylua.Config.new();
  made.column_width = Number(options.column_width);
  made.indent_width = Number(options.indent_width);
  made.indent_type = stylua.IndentType[options.indent_type];
  return made;
}

const files = fs
  .readdirSync(__dirname, { recursive: true })
  .filter((file) => file.endsWith(".lua") && !file.startsWith("node_modules"));
let differing = 0;
for (const file of files.map((name) => path.join(__dirname, name))) {
  const before = fs.readFileSync(file, "utf8");
  const after = stylua.formatCode(before, config(), undefined, stylua.OutputVerification.Full);
  if (before === after) continue;
  differing += 1;
  if (process.argv.includes("--write")) fs.writeFileSync(file, after);
  console.log(path.relative(process.cwd(), file));
}
console.log(`${files.length} files, ${differing} differing`);
process.exitCode = differing && !process.argv.includes("--write") ? 1 : 0;
