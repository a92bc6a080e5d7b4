/** Which files hold secrets by their name: of these the server is told nothing. */

// The server's own lists (`lsp_server/private_files.py`).
const NAMES = [
  ".env*",
  "*.env",
  "*.env.*",
  "*.pem",
  "*.key",
  "*.p8",
  "*.p12",
  "*.pfx",
  "*.keystore",
  "*.jks",
  "*.kdbx",
  "*.ppk",
  "id_rsa*",
  "id_dsa*",
  "id_ed25519*",
  "id_ecdsa*",
  ".netrc",
  ".pgpass",
  ".npmrc",
  ".pypirc",
  ".git-credentials",
  ".htpasswd",
  ".vault-token",
  "*.tfvars*",
  "*.tfstate*",
  "credentials*",
  "service-account*.json",
  "client_secret*.json",
  "secrets*",
  "*secrets.*",
  "*secret.json",
  "*secret.yaml",
  "*secret.yml",
  "*secret.toml",
  "*secret.ini",
  "*secret.txt",
  "*secret.properties",
];
const FOLDERS = [".ssh", ".aws", ".kube", ".gnupg", ".docker"];
const PATTERN = new RegExp(`^(?:${NAMES.map((name) => name.replaceAll(".", "\\.").replaceAll("*", ".*")).join("|")})$`, "s");

/** Whether a file's name, or a folder in its path, says that it holds secrets; `path` has slashes, as a URI's path has. */
export function isSecret(path: string): boolean {
  const folders = path.toLowerCase().split("/");
  const name = folders.pop() ?? "";
  return FOLDERS.some((folder) => folders.includes(folder)) || PATTERN.test(name);
}
