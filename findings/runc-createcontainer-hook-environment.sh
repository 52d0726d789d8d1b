#!/bin/sh
# runc 1.1.5 (Debian 12): a createContainer hook whose "env" is absent starts without any environment, while
# createRuntime and poststop hooks, written in the same way, get all of the caller's. runtime-spec's config.md gives "env" of
# every hook the same meaning and names no such difference. The reason is that runc runs createContainer hooks in the
# container's process, whose environment it has cleared by then.
#
# Seen: "createRuntime MARK=1", "createContainer MARK=", "poststop MARK=1". Fails if that changes. Needs root and apt.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq runc=1.1.5+ds1-1+deb12u1 "busybox-static=1:1.35.0-4+deb12u1+b1" >/dev/null 2>&1
for package in ./*.deb; do dpkg -x "$package" x; done
mkdir -p bundle/rootfs/bin
cp x/bin/busybox bundle/rootfs/bin/sh
cat >hook <<'HOOK'
#!/bin/sh
echo "$1 MARK=${MARK-}" >>"$2"
HOOK
chmod +x hook
hook() { printf '"%s":[{"path":"%s/hook","args":["hook","%s","%s/log"]}]' "$1" "$work" "$1" "$work"; }
(cd bundle && "$work/x/usr/sbin/runc" spec)
sed -i 's/"terminal": true/"terminal": false/; s/^\t\t\t"sh"$/\t\t\t"sh","-c",":"/' bundle/config.json
sed -i "s|\"hostname\": \"runc\",|\"hostname\": \"runc\", \"hooks\":{$(hook createRuntime),$(hook createContainer),$(hook poststop)},|" \
    bundle/config.json
MARK=1 "$work/x/usr/sbin/runc" --root "$work/state" run -b bundle "finding-$$" </dev/null
cat log
printf 'createRuntime MARK=1\ncreateContainer MARK=\npoststop MARK=1\n' | cmp - log
echo "as described: runc 1.1.5"
