#!/usr/bin/env bash
# Open a copy of the sample file in Neovim with this plugin and nothing else of the user's.
# Takes the server's path; $NVIM names the editor.
set -euo pipefail
server=$1
plugin=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$plugin/../.." && pwd)
fetched=${KEYSTATE_EDITORS_DIR:-$repository/.cache/editors}/neovim/bin/nvim

is_new_enough() {
    command -v "$1" >/dev/null && "$1" --clean --headless +'exe has("nvim-0.11") ? "qa" : "cq"' 2>/dev/null
}
nvim=${NVIM:-nvim}
if ! is_new_enough "$nvim"; then
    nvim=$fetched
    if ! is_new_enough "$nvim"; then
        echo "No Neovim 0.11 or newer; on Debian, tests/editors/neovim/install.sh fetches one." >&2
        exit 1
    fi
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$repository/perf/samples/job_queue.py" "$folder"
cd "$folder"
KEYSTATE_SERVER=$server KEYSTATE_PLUGIN=$plugin "$nvim" --clean -u "$plugin/open-sample.lua" job_queue.py
