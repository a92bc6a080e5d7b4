#!/usr/bin/env bash
# luacheck over the plugin, run by the Neovim that tests/editors/neovim/install.sh fetched beside
# it; then StyLua, if `npm ci` has been run here.
set -euo pipefail
cd "$(dirname "$0")"
folder=${KEYSTATE_EDITORS_DIR:-$PWD/../../.cache/editors}/neovim
modules=$(dirname "$(find "$folder/root/usr/lib" -path '*/lua/5.1/lfs.so')")
LUA_PATH="$folder/root/usr/share/lua/5.1/?.lua;$folder/root/usr/share/lua/5.1/?/init.lua" \
    LUA_CPATH="$modules/?.so" "$folder/bin/nvim" -l "$folder/root/usr/bin/luacheck" \
    --no-color --quiet --exclude-files node_modules -- .
if [[ -d node_modules ]]; then
    node format.cjs
else
    echo "StyLua was not run: npm ci --ignore-scripts in $PWD installs it" >&2
fi
