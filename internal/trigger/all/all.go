// Package all lists the trigger types that Offboard has. To add one, write its package and add a line here.
package all

import (
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/redis"
)

// Types returns every trigger type. Triggers made from the result of one call share connections, so a process calls it
// once.
func Types() []trigger.Type {
	return []trigger.Type{
		redis.Type(redis.NewClients()),
	}
}
