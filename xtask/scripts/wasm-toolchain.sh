#!/usr/bin/env bash
# Assembles a private Rust toolchain that targets wasm32-unknown-unknown, for machines
# whose rustup has no wasm32 target: Debian's rustc-web and its source, unpacked into a
# folder of our own and never installed system-wide.
#   wasm-toolchain.sh FOLDER
# Afterwards: PATH="FOLDER/bin:$PATH" cargo build --target wasm32-unknown-unknown
# FOLDER/.stamp is written last, so a folder without it is half made and is made anew.
set -euo pipefail

TARGET=wasm32-unknown-unknown
# The workspace's rust-version: an older compiler would refuse our crates.
MINIMUM=1.95
PREFIX=$(realpath -m "${1:?usage: wasm-toolchain.sh FOLDER}")
STAMP="$PREFIX/.stamp"

mkdir -p "$(dirname "$PREFIX")"
exec 9>"$PREFIX.lock"
flock 9
if [ -f "$STAMP" ]; then
  echo "wasm toolchain is in place: $(cat "$STAMP")"
  exit 0
fi

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# On a fresh image the package lists may be absent, or older than the security update that
# brings the compiler we need.
candidate() { apt-cache policy rustc-web 2>/dev/null | awk '/Candidate:/{print $2}'; }
new_enough() { [ -n "$1" ] && [ "$1" != "(none)" ] && dpkg --compare-versions "$1" ge "$MINIMUM"; }
version=$(candidate)
if ! new_enough "$version"; then
  as_root apt-get update -qq
  version=$(candidate)
fi
if ! new_enough "$version"; then
  echo "Debian offers rustc-web '${version:-none}', and $MINIMUM or newer is needed." >&2
  echo "Enable bookworm-security, or add rustup's $TARGET target yourself." >&2
  exit 1
fi

rm -rf "$PREFIX"
mkdir -p "$PREFIX/debs" "$PREFIX/debian" "$PREFIX/bin"

# Package names carry versions (1.96.0+dfsg1-1 -> libstd-rust-web-1.96, libllvm19).
upstream=${version%%+*}
runtime="libstd-rust-web-${upstream%.*}"
llvm=$(apt-cache show "$runtime=$version" | sed -n 's/^Depends:.*\(libllvm[0-9]*\).*/\1/p' | head -1)
lld=${llvm#libllvm}
(
  cd "$PREFIX/debs"
  chmod 777 . # apt downloads as its own user
  packages=("rustc-web=$version" "libstd-rust-web-dev=$version" "$runtime=$version"
    "rust-web-src=$version" "rust-web-llvm=$version" "$llvm" "lld-$lld" "liblld-$lld")
  apt-get download -q "${packages[@]}" || { as_root apt-get update -qq; apt-get download -q "${packages[@]}"; }
)
missing=()
for pair in libz3.so.4:libz3-4 libedit.so.2:libedit2 libxml2.so.2:libxml2; do
  ldconfig -p | grep -qF "${pair%%:*}" || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

for deb in "$PREFIX"/debs/*.deb; do
  case "$deb" in
    *rust-web-src*) dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$PREFIX/debian" --wildcards './usr/lib/rustlib/src*' './usr/src/*/library' ;;
    *) dpkg-deb -x "$deb" "$PREFIX/debian" ;;
  esac
done
rm -rf "$PREFIX/debs" "$PREFIX/debian/usr/share/doc"

usr="$PREFIX/debian/usr"
host_bin="$usr/lib/rustlib/x86_64-unknown-linux-gnu/bin"
mkdir -p "$host_bin"
cp -f "$usr/lib/llvm-$lld/bin/lld" "$host_bin/rust-lld"
for tool in rustc rustdoc; do
  [ -e "$usr/bin/$tool" ] || continue
  printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "%s" "$@"\n' \
    "$usr/lib/x86_64-linux-gnu" "$usr/bin/$tool" >"$PREFIX/bin/$tool"
  chmod +x "$PREFIX/bin/$tool"
done
# Any cargo of about the same age drives it. The proxy would put rustup's own rustc first.
ln -sfn "$(rustup which cargo 2>/dev/null || command -v cargo)" "$PREFIX/bin/cargo"
"$PREFIX/bin/rustc" -V

# std, from the packaged source and its vendored crates: nothing comes from a registry. What is built
# with it says where std's source was by the name that rustup's std has for it, not by our folder.
library="$usr/lib/rustlib/src/rust/library"
seed="$PREFIX/build-std"
mkdir -p "$seed/src"
printf '[package]\nname="stdseed"\nversion="0.0.0"\nedition="2021"\n[lib]\ncrate-type=["rlib"]\n[workspace]\n' >"$seed/Cargo.toml"
: >"$seed/src/lib.rs"
(
  cd "$seed"
  env -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR -u RUSTC_WRAPPER \
    -u RUSTUP_TOOLCHAIN -u RUSTC \
    PATH="$PREFIX/bin:$PATH" RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Cembed-bitcode=yes -Cdebuginfo=0 --remap-path-prefix=${library%/library}=/rustc/$upstream" \
    cargo build -q -Zbuild-std=std,panic_abort,panic_unwind,test,proc_macro --release --offline --target "$TARGET" \
    --config "source.crates-io.replace-with='vendored-std'" \
    --config "source.vendored-std.directory='$library/vendor'"
)
installed="$usr/lib/rustlib/$TARGET/lib"
mkdir -p "$installed"
cp "$seed/target/$TARGET/release/deps/"*.rlib "$installed/"
rm -f "$installed"/libstdseed-*.rlib
rm -rf "$seed"
echo "rustc-web $version for $TARGET" >"$STAMP"
cat "$STAMP"
