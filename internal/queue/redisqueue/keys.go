package redisqueue

import (
	"strconv"
	"strings"
)

// parts of the names of the keys that go with a list, in the order of the script's KEYS, the list itself being first.
var suffixes = []string{"items", "meta", claimedSuffix, "leases", "due", "delayed", "dead", "past", "state", wakeSuffix}

const (
	claimedSuffix = "claimed"
	wakeSuffix    = "wake"
	backSuffix    = "back" // of streams only
)

// WakeKey is the key that tells when an item of the list comes back to it by itself, in milliseconds since 1970; there
// is none while no item does. Who watches the list watches this key too.
func WakeKey(list string) string { return Prefix(list) + wakeSuffix }

// ClaimedKey is the key of the sorted set of all claims on the list.
func ClaimedKey(list string) string { return Prefix(list) + claimedSuffix }

// keys returns the keys of the script for a list. All are in the slot of the list, so that they may be used together
// on a Redis Cluster (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags).
func keys(list string) []string {
	return keysUnder(list, Prefix(list))
}

// keysUnder returns the key of a source and those that begin with the prefix.
func keysUnder(source, prefix string) []string {
	all := make([]string, 0, len(suffixes)+3) // room for a key of the source and a unique key
	all = append(all, source)
	for _, suffix := range suffixes {
		all = append(all, prefix+suffix)
	}
	return all
}

// uniqueKey is the key that holds a unique key of a push to the queue whose keys begin with the prefix.
func uniqueKey(prefix, unique string) string { return prefix + "unique:" + unique }

// Prefix returns what the names of a list's other keys begin with, for those who grant rights on them.
func Prefix(list string) string {
	switch {
	case tag(list) != "":
		return list + ":offboard:" // the same tag decides
	case !strings.Contains(list, "}"):
		return "{" + list + "}:offboard:"
	default:
		// Between braces the name would end too early. Any tag of the same slot does.
		return "{" + tagOfSlot(Slot(list)) + "}" + list + ":offboard:"
	}
}

// tag returns the part of a key that decides its slot: what is between the first opening brace and the first closing
// one after it; empty when there is no such part.
func tag(key string) string {
	_, rest, _ := strings.Cut(key, "{")
	tag, _, found := strings.Cut(rest, "}")
	if !found {
		return ""
	}
	return tag
}

// Slots is how many slots a Redis Cluster has.
const Slots = 16384

// Slot returns the slot of a key: the CRC-16/XMODEM of its hash tag, or of the whole key, modulo the number of slots.
func Slot(key string) uint16 {
	if tag := tag(key); tag != "" {
		key = tag
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % Slots
}

// tagOfSlot returns a short text of that slot. About one number in as many as there are slots has it.
func tagOfSlot(wanted uint16) string {
	for i := 0; ; i++ {
		if tag := strconv.Itoa(i); Slot(tag) == wanted {
			return tag
		}
	}
}
