// Package redis is the trigger types of Redis: the length of a list, or the size of a set, a sorted set or a hash, and
// what waits in a stream; each on one server, on the master that sentinels name, or on a cluster.
//
// A measurement is answered from memory for as long as the server has not said that the key changed (client tracking,
// Redis 6 and later, no server setting needed), so that asking often costs nothing and a push is noticed at once.
// Triggers with equal connection settings share one connection, on a cluster one to each node.
package redis

import (
	"context"
	"fmt"
	"strings"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// Types returns the trigger types. Their triggers share the connections of clients.
func Types(clients *Clients) []trigger.Type {
	var types []trigger.Type
	for _, f := range []family{
		{name: "redis"},
		{name: "redis-cluster", topology: clusterTopology},
		{name: "redis-sentinel", topology: sentinelTopology},
		{name: "redis-streams", stream: true},
		{name: "redis-cluster-streams", topology: clusterTopology, stream: true},
		{name: "redis-sentinel-streams", topology: sentinelTopology, stream: true},
	} {
		types = append(types, f.declare(clients))
	}
	return types
}

// family is what tells one of the types from the others.
type family struct {
	name     string
	topology topology
	stream   bool
}

func (f family) declare(clients *Clients) trigger.Type {
	where := map[topology]string{
		singleTopology: "", clusterTopology: " on a Redis Cluster", sentinelTopology: " on the master that sentinels name",
	}[f.topology]
	declared := trigger.Type{
		Name:      f.name,
		Doc:       "The length of a Redis list, or the size of a set, a sorted set or a hash" + where + ".",
		Claims:    true,
		Watches:   true,
		Example:   f.example(map[string]string{paramListName: "usertask", paramListLength: "1"}),
		Params:    append(listParams(), f.connectionParams()...),
		Threshold: listThreshold,
		Check:     f.check,
		MetricName: func(values trigger.Values) string {
			return "redis-" + strings.TrimSpace(values.String(paramListName))
		},
	}
	build := newListTrigger
	if f.stream {
		build = newStreamTrigger
		declared.Doc = "The entries of a Redis stream, those that a consumer group has not read yet, or those that it has " +
			"not acknowledged" + where + "."
		declared.CheckClaims = checkGroup
		declared.Example = f.example(map[string]string{
			paramStream: "usertask", paramGroup: "workers", paramPending: "1",
		})
		declared.Params = append(streamParams(), f.connectionParams()...)
		declared.Threshold = streamThreshold
		declared.MetricName = func(values trigger.Values) string {
			return fmt.Sprintf("redis-streams-%s", values.String(paramStream))
		}
	}
	declared.Build = func(_ context.Context, cfg trigger.Config, values trigger.Values) (trigger.Trigger, error) {
		chosen, err := newSettings(f, values, cfg.EmbeddedRedis)
		if err != nil {
			return nil, err
		}
		return build(clients, chosen, cfg, values), nil
	}
	return declared
}

// example is a trigger with that metadata and the family's way to say where the servers are.
func (f family) example(metadata map[string]string) trigger.Example {
	auth := map[string]string{paramUsername: "worker", paramPassword: "change-me"}
	switch f.topology {
	case singleTopology:
		metadata[paramAddress] = "redis.example:6379"
	case clusterTopology:
		metadata["addresses"] = "redis-0.example:6379,redis-1.example:6379,redis-2.example:6379"
	case sentinelTopology:
		metadata["addresses"] = "sentinel-0.example:26379,sentinel-1.example:26379,sentinel-2.example:26379"
		metadata[paramSentinelMaster] = "mymaster"
		auth[paramSentinelPassword] = "change-me"
	}
	return trigger.Example{Metadata: metadata, Auth: auth}
}
