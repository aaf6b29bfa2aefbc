# Runs a program with files mounted into its view of the machine's, in a mount namespace of its own, which ends with it:
#
#   unshare --mount sh enter.sh ROOT DIR [SOURCE TARGET ro|rw]... -- PROGRAM [ARGUMENT...]
#
# ROOT is an empty folder, and becomes the root of a view that holds everything there is, so that mount points can be
# made that the machine does not have. DIR is the folder to work in.
set -eu
saved=$PATH
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root=$1 dir=$2
shift 2
mount -t tmpfs -o mode=0755 tmpfs "$root"
for from in /* /.[!.]*; do
	to=$root$from
	if [ -L "$from" ]; then
		cp -P "$from" "$to"
	elif [ -d "$from" ]; then
		mkdir "$to"
		mount --rbind "$from" "$to"
	elif [ -e "$from" ]; then
		: >"$to"
		mount --bind "$from" "$to"
	fi
done
while [ "$1" != -- ]; do
	from=$1 to=$root$2 access=$3
	shift 3
	if [ -d "$from" ]; then
		mkdir -p "$to"
	elif [ ! -e "$to" ]; then
		mkdir -p "${to%/*}"
		: >"$to"
	fi
	mount --bind "$from" "$to"
	if [ "$access" = ro ]; then
		mount -o remount,bind,ro "$to"
	fi
done
shift
chroot=$(command -v chroot)
PATH=$saved
exec "$chroot" "$root" /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$dir" "$@"
