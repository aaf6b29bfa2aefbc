package redisqueue

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/offboard-dev/offboard/internal/queue"
	"github.com/offboard-dev/offboard/internal/redistest"
)

// TestNothingIsTakenWithoutAllRights takes one right after another from a user that claims. What a script has changed
// when a command of it is denied stays changed, so an item could be lost.
func TestNothingIsTakenWithoutAllRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	options := queue.ClaimOptions{Owner: "o", Most: 1, Lease: 1e9, Attempts: 2}
	server.Do("RPUSH", "l", "a")
	for _, command := range []string{
		"evalsha", "eval", "time", "lpop", "lpush", "rpush", "llen", "exists", "del", "hget", "hmget", "hset", "hdel",
		"hincrby", "zadd", "zrem", "zrange", "zrangebyscore", "get", "set",
	} {
		server.Do("SCRIPT", "FLUSH")
		server.Do("ACL", "SETUSER", command, "on", ">p", "~*", "+@all", "-"+command)
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{server.Addr()}, Username: command, Password: "p", ForceSingleClient: true, DisableCache: true,
			ConnWriteTimeout: time.Minute, Dialer: net.Dialer{Timeout: time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		result, err := New(conn{client}, "l").Claim(t.Context(), options)
		client.Close()
		if err == nil || !strings.Contains(err.Error(), "can't run this command") &&
			!strings.Contains(strings.ToUpper(err.Error()), strings.ToUpper(command)) {
			t.Errorf("without %s: %+v, %v", command, result, err)
		}
		answer := server.Do("LLEN", "l")
		if left, err := answer.AsInt64(); err != nil || left != 1 {
			t.Fatalf("without %s: %d items are left, %v", command, left, err)
		}
	}
}

// TestGivingBackWithAFailure counts one, at the head of the list at once.
func TestGivingBackWithAFailure(t *testing.T) {
	t.Parallel()
	q, server := start(t, "l")
	server.Do("RPUSH", "l", "a", "b")
	for attempt := 1; attempt <= 3; attempt++ {
		result, err := q.Claim(t.Context(), queue.ClaimOptions{Owner: "o", Most: 1})
		if err != nil || len(result.Claims) != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
		claim := result.Claims[0]
		if string(claim.Parts[0]) != "a" || claim.Attempt != attempt || claim.Failures != attempt-1 {
			t.Errorf("got %+v", claim)
		}
		if _, err := q.Settle(t.Context(), []queue.Settlement{{
			ID: claim.ID, Attempt: claim.Attempt, Verb: queue.GiveBack, Failure: &queue.Failure{Reason: "ExitCode"},
		}}); err != nil {
			t.Fatal(err)
		}
	}
}
