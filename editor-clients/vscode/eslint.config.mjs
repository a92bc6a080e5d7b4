import eslint from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "build/", "node_modules/"] },
  {
    files: ["src/**/*.ts", "test/**/*.ts"],
    extends: [eslint.configs.recommended, tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      // Numbers are what most of our texts are made of.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/consistent-type-imports": "error",
    },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // `test()` of node:test returns a promise that its runner waits for.
      "@typescript-eslint/no-floating-promises": "off",
    },
  },
  { files: ["*.mjs"], extends: [eslint.configs.recommended], languageOptions: { globals: { process: "readonly" } } },
);
