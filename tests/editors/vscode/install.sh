#!/usr/bin/env bash
# Installs VS Code in a browser (code-server, which is VS Code 1.99) and a browser for it, from
# Debian and npm packages alone. What is there already is left as it is.
#
# Usage: install.sh            into .cache/editors/vscode of the repository, or
#        KEYSTATE_EDITORS_DIR=DIR  into DIR/vscode
# Needs root for apt, unless the Debian packages are there; Node 20, gcc, g++, make and Python 3.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${KEYSTATE_EDITORS_DIR:-$root/.cache/editors}/vscode

say() { printf 'vscode editor: %s\n' "$*"; }

packages=()
for package in chromium libkrb5-dev libx11-dev libxkbfile-dev libsecret-1-dev pkg-config; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || packages+=("$package")
done
if ((${#packages[@]})); then
  say "apt-get install ${packages[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# The lock file is what was installed; another one, and everything is installed again.
stamp=$(sha256sum "$here/package-lock.json" "$here/install.sh" | sha256sum | cut -d' ' -f1)
if [[ -f $target/installed && $(<"$target/installed") == "$stamp" ]]; then
  say "there already: $target"
  exit 0
fi
rm -rf "$target"
mkdir -p "$target"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$target"
cd "$target"

# Native modules are built against the headers of the Node that runs here, where it brings them.
prefix=$(node -p 'require("path").resolve(process.execPath, "../..")')
[[ -f $prefix/include/node/node.h ]] && export npm_config_nodedir=$prefix
export npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false

# Without scripts: code-server's own refuse root and fetch binaries. What is native is built below.
say "code-server and playwright-core"
npm ci --ignore-scripts --no-progress --loglevel=error
npm rebuild argon2 --build-from-source --loglevel=error

say "VS Code's own modules"
cd node_modules/code-server/lib/vscode
npm install --omit=dev --ignore-scripts --no-progress --loglevel=error
# node-pty's own last step fails after it has built; what must be there is looked for below.
npm rebuild native-watchdog @vscode/spdlog node-pty kerberos @parcel/watcher @vscode/deviceid \
  >"$target/rebuild.log" 2>&1 || true
for addon in native-watchdog/build/Release/watchdog.node @vscode/spdlog/build/Release/spdlog.node \
  node-pty/build/Release/pty.node; do
  [[ -f node_modules/$addon ]] || { say "not built: $addon, see $target/rebuild.log"; exit 1; }
done
ln -sfn node_modules node_modules.asar
cd extensions
npm install --omit=dev --ignore-scripts --no-progress --loglevel=error

cd "$target"
node node_modules/code-server/out/node/entry.js --version
printf '%s\n' "$stamp" >"$target/installed"
say "installed: $target ($(du -sh "$target" | cut -f1))"
