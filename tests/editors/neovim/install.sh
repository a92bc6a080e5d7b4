#!/usr/bin/env bash
# Fetch the Neovim of Debian sid, tmux and luacheck, with all they link to, into a folder of their
# own: 15 MB and ten seconds, no root, nothing of the system is touched. Prints the editor's path.
#
# The folder is $KEYSTATE_EDITORS_DIR/neovim, by default .cache/editors/neovim in this repository.
# Where it is complete, nothing is done. Needs apt-get, dpkg-deb and Debian's archive keys.
set -euo pipefail

repository=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${KEYSTATE_EDITORS_DIR:-$repository/.cache/editors}/neovim
nvim=$folder/bin/nvim
if [[ -x $nvim ]]; then
    echo "$nvim"
    exit
fi
for tool in apt-get dpkg-deb dpkg; do
    command -v "$tool" >/dev/null || { echo "install.sh needs $tool: not a Debian system?" >&2; exit 1; }
done

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -r $keys ]] || { echo "install.sh needs $keys (package debian-archive-keyring)" >&2; exit 1; }

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT

# An apt of its own: its own sources, its own lists, and no package installed, so that everything
# that Neovim needs is fetched, down to libc.
apt=$work/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
# The mirror that the system itself uses.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)}
[[ -n $mirror ]] || { echo "install.sh finds no mirror in apt's sources: set DEBIAN_MIRROR" >&2; exit 1; }
echo "deb [signed-by=$keys] $mirror sid main" >"$apt/sources.list"
own_apt() {
    apt-get -qq -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
        -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" \
        -o Dir::Cache::archives="$apt/archives" -o Dir::Etc::sourcelist="$apt/sources.list" \
        -o Dir::Etc::sourceparts=/nonexistent -o APT::Install-Recommends=false \
        -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o Debug::NoLocking=true "$@" >&2
}
own_apt update
own_apt --download-only --yes install neovim tmux lua-check patchelf

root=$work/root
for package in "$apt"/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
libraries=$(dirname "$(find "$root/usr/lib" -name libc.so.6)")
loader=$(find "$root/usr/lib64" "$root/usr/lib" -name 'ld-linux*' -print -quit 2>/dev/null)

# The editor starts itself again, so its loader and its libraries have to be written into it; the
# paths are those that the folder has in the end.
final() { echo "$folder/root${1#"$root"}"; }
mkdir "$work/bin"
wrap() {
    local name=$1 variables=$2
    "$loader" --library-path "$libraries" "$root/usr/bin/patchelf" \
        --set-interpreter "$(final "$loader")" --force-rpath --set-rpath "$(final "$libraries")" \
        "$root/usr/bin/$name"
    printf '#!/bin/sh\n%s exec "%s" "$@"\n' "$variables" "$(final "$root/usr/bin/$name")" >"$work/bin/$name"
    chmod +x "$work/bin/$name"
}
wrap nvim "VIMRUNTIME='$folder/root/usr/share/nvim/runtime'"
wrap tmux ""

rm -rf "$apt" "$folder"
chmod 755 "$work"
mv "$work" "$folder"
trap - EXIT
"$nvim" --version >/dev/null
echo "$nvim"
