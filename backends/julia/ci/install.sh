#!/usr/bin/env bash
# Julia 1.5.3 for tests, in a folder of its own: backends/julia/ci/install.sh PREFIX, then PREFIX/bin/julia.
#
# The only Julia that Debian has, of its release 11. The packages come from the mirror that this machine's apt already uses, are
# pinned in ci/packages, and are unpacked, not installed: nothing of the system changes. Done already, it ends at once.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prefix=$(realpath -m "${1:?usage: install.sh PREFIX}")
stamp=$(cat "$here/packages" "$here/install.sh" | sha256sum)
if [ "$(cat "$prefix/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
[ "$(dpkg --print-architecture)" = amd64 ] || { echo "error: the packages are pinned for amd64 only" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where this machine gets Debian from; apt only says once it has fetched its lists.
mirrors() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u; }
[ -n "$(mirrors)" ] || apt-get -qq update
debian=$(mirrors | grep -E '/debian/?$' | head -n 1 || true)
security=$(mirrors | grep -E '/debian-security/?$' | head -n 1 || true)
[ -n "$debian" ] || { echo "error: apt on this machine knows no Debian mirror" >&2; exit 1; }

# An apt that knows the older release and keeps everything in the work folder.
mkdir -p "$work"/{lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d,state,debs}
: >"$work/etc/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $debian bullseye main" >"$work/etc/sources.list"
if [ -n "$security" ]; then
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $security bullseye-security main" >>"$work/etc/sources.list"
fi
cat >"$work/apt.conf" <<END
Dir::Etc "$work/etc"; Dir::Etc::sourcelist "$work/etc/sources.list"; Dir::Etc::sourceparts "-";
Dir::State "$work/state"; Dir::State::lists "$work/lists"; Dir::State::status "$work/etc/status"; Dir::Cache "$work/cache";
APT::Sandbox::User "root"; Acquire::Languages "none"; Acquire::Retries "3";
Acquire::Check-Valid-Until "false"; # the release gets no more updates, so its lists are older than they promise
END
export APT_CONFIG=$work/apt.conf
apt-get -qq update
grep -v '^#' "$here/packages" | while read -r name version digest; do
    (cd "$work/debs" && apt-get -qq download "$name=$version")
    file=$(find "$work/debs" -name "${name}_*.deb")
    echo "$digest  $file" | sha256sum --check --quiet || { echo "error: $name is not the package that was pinned" >&2; exit 1; }
    case $name in
        libmpfr6) dpkg-deb -x "$file" "$work/mpfr" ;;
        *) dpkg-deb -x "$file" "$work/julia" ;;
    esac
done

libraries=usr/lib/x86_64-linux-gnu
# With the system's MPFR 4.2 this Julia prints BigFloats wrongly; beside its own libraries no other program finds this one.
cp -L "$work/mpfr/$libraries/libmpfr.so.6" "$work/julia/$libraries/julia/libmpfr-4.1.0.so"
ln -sfn libmpfr-4.1.0.so "$work/julia/$libraries/julia/libmpfr.so"
# Links into packages that are not here, to the system's libraries of the same interface.
for pair in libcurl.so:libcurl-gnutls.so.4 libgmp.so:libgmp.so.10 libpcre2-8.so:libpcre2-8.so.0 libssh2.so:libssh2.so.1; do
    target=$(/sbin/ldconfig -p | awk -v name="${pair##*:}" '$1 == name { print $NF; exit }')
    [ -n "$target" ] || { echo "error: ${pair##*:} is missing; .ci/apt-packages names its package" >&2; exit 1; }
    ln -sfn "$target" "$work/julia/$libraries/julia/${pair%%:*}"
done
rm -rf "$work/julia/usr/share/doc" "$work/julia/usr/share/man" "$work/julia/usr/share/julia/test"

mkdir -p "$work/julia/bin"
cat >"$work/julia/bin/julia" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$prefix/$libraries:$prefix/lib/x86_64-linux-gnu
exec $prefix/usr/bin/julia "\$@"
END
chmod +x "$work/julia/bin/julia"
echo "$stamp" >"$work/julia/stamp"

rm -rf "$prefix"
mkdir -p "$(dirname "$prefix")"
mv "$work/julia" "$prefix"
"$prefix/bin/julia" --startup-file=no -e 'VERSION == v"1.5.3" && string(sqrt(big(2)))[1:5] == "1.414" || error("it does not work")'
