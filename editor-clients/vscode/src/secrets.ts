/** Which files hold secrets by their name: of these the server is told nothing. */

/** The server's own list (`lsp_server/private_files.py`), as prefixes and suffixes of a name. */
const PREFIXES = [".env", "id_rsa", "id_dsa", "id_ed25519", "id_ecdsa", "credentials", "secrets"];
const SUFFIXES = [".pem", ".key", ".p12", ".pfx", ".keystore", ".jks", ".kdbx", ".ppk"];
const NAMES = [".netrc", ".pgpass", ".npmrc", ".pypirc", ".git-credentials", ".htpasswd"];

/** Whether a file's name says that it holds secrets; `path` has slashes, as a URI's path has. */
export function isSecret(path: string): boolean {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  return (
    PREFIXES.some((prefix) => name.startsWith(prefix)) ||
    SUFFIXES.some((suffix) => name.endsWith(suffix)) ||
    NAMES.includes(name)
  );
}
