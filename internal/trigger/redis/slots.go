package redis

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/offboard-dev/offboard/internal/queue/redisqueue"
)

// slotRange is a range of slots, both ends included, and the address of the node that serves it.
type slotRange struct {
	first, last int64
	address     string
}

// parseSlots reads the answer to CLUSTER SLOTS (https://redis.io/docs/latest/commands/cluster-slots), which the node at
// the address gave: for each range its ends, the master, and the replicas. A node is host, port, and more.
func parseSlots(answer any, asked string) ([]slotRange, error) {
	entries, ok := answer.([]any)
	if !ok {
		return nil, errShape
	}
	ranges := make([]slotRange, 0, len(entries))
	for _, entry := range entries {
		fields, ok := entry.([]any)
		if !ok || len(fields) < 3 {
			return nil, errShape
		}
		first, isFirst := fields[0].(int64)
		last, isLast := fields[1].(int64)
		if !isFirst || !isLast || first < 0 || first > last || last >= redisqueue.Slots {
			return nil, errShape
		}
		node, ok := fields[2].([]any)
		if !ok || len(node) < 2 {
			return nil, errShape
		}
		host, _ := node[0].(string) // null where the node does not know by what name it is reached
		port, ok := node[1].(int64)
		if !ok {
			return nil, errShape
		}
		address, err := nodeAddress(host, strconv.FormatInt(port, 10), asked)
		if err != nil {
			return nil, err
		}
		ranges = append(ranges, slotRange{first, last, address})
	}
	return ranges, nil
}

// nodeAddress makes the address of a node that another one names. Without a host, it is that of the other.
func nodeAddress(host, port, asked string) (string, error) {
	if host == "" {
		host, _, _ = net.SplitHostPort(asked)
	}
	if host == "?" {
		return "", fmt.Errorf("does not know the host of a node; set its cluster-announce-hostname")
	}
	if !validHost(host) || !validPort(port) {
		return "", errShape
	}
	return net.JoinHostPort(host, port), nil
}

// redirection is what MOVED and ASK say: that another node is to be asked.
type redirection struct {
	address string
	// ask tells that the slot is on its way there; it is there already if not.
	ask bool
}

// redirectionOf returns the redirection that an error reply of the node at the address is; nil when it is none.
func redirectionOf(err error, asked string) *redirection {
	words := strings.Fields(replyText(err))
	if len(words) != 3 || (words[0] != "MOVED" && words[0] != "ASK") {
		return nil
	}
	colon := strings.LastIndexByte(words[2], ':')
	if colon < 0 {
		return nil
	}
	address, err := nodeAddress(strings.Trim(words[2][:colon], "[]"), words[2][colon+1:], asked)
	if err != nil {
		return nil
	}
	return &redirection{address: address, ask: words[0] == "ASK"}
}
