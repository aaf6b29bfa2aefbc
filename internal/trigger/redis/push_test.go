package redis_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/offboard-dev/offboard/internal/redistest"
	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestPush(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	client := server.Client()
	many := make([][]byte, 10000)
	for i := range many {
		many[i] = fmt.Append(nil, "item ", i)
	}
	for name, items := range map[string][][]byte{
		"none":         nil,
		"one":          {[]byte(`{"user": 1}`)},
		"odd bytes":    {[]byte("a\r\nb\x00c"), {0xff, 0xfe}, {}, []byte("ünï")},
		"many":         many,
		"10 MB":        {bytes.Repeat([]byte("x"), 10<<20), []byte("small"), bytes.Repeat([]byte("y"), 10<<20)},
		"just shared":  {bytes.Repeat([]byte("x"), 256<<10)},
		"just not":     {bytes.Repeat([]byte("x"), 256<<10+1)},
		"two commands": append(many[:4096:4096], []byte("last")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := open(t, config{"address": server.Addr(), "listName": name})
			var length int64
			err := triggertest.Again(func() (err error) {
				server.Do("DEL", name) // what is not answered in time may have arrived
				length, err = made.(trigger.Pusher).Push(t.Context(), items...)
				return err
			})
			if err != nil || length != int64(len(items)) {
				t.Fatalf("length %d, error %v, want %d", length, err, len(items))
			}
			got, err := client.Do(t.Context(), client.B().Lrange().Key(name).Start(0).Stop(-1).Build()).AsStrSlice()
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(items) {
				t.Fatalf("%d items, want %d", len(got), len(items))
			}
			for i := range got {
				if got[i] != string(items[i]) {
					t.Fatalf("item %d is %.40q, want %.40q", i, got[i], items[i])
				}
			}
			waitFor(t, "the measurement", func() bool { return measure(t, made).Value == float64(len(items)) })
		})
	}
}

func TestPushIsAllOrNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{Directives: []string{"maxmemory 6mb", "maxmemory-policy noeviction"}})
	made := open(t, config{"address": server.Addr(), "listName": "list"})
	items := make([][]byte, 64)
	for i := range items {
		items[i] = bytes.Repeat([]byte{byte(i)}, 1<<20)
	}
	_, err := made.(trigger.Pusher).Push(t.Context(), items...)
	if err == nil || !strings.Contains(err.Error(), "OOM") || strings.Contains(err.Error(), "unknown whether") {
		t.Errorf("error %v", err)
	}
	if got := measure(t, made); got.Value != 0 {
		t.Errorf("%v of %d items were pushed", got.Value, len(items))
	}
}

func TestPushRefused(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, redistest.Options{})
	replica := redistest.Start(t, redistest.Options{Directives: []string{"replicaof 127.0.0.1 " + master.Port()}})
	master.Do("SADD", "set", "a")
	for _, test := range []struct{ address, list, want string }{
		{master.Addr(), "set", "holds another type under this key"},
		{replica.Addr(), "list", "is a replica, which takes no items; give the address of its master"},
	} {
		made := open(t, config{"address": test.address, "listName": test.list})
		for _, items := range [][][]byte{{[]byte("a")}, make([][]byte, 5000)} {
			_, err := made.(trigger.Pusher).Push(t.Context(), items...)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), fmt.Sprintf("%q", test.list)) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		}
	}
}

func TestPushWithoutServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Options{})
	proxy := servertest.StartProxy(t, server.Addr())
	made := open(t, config{"address": proxy.Addr(), "listName": "list"})
	measure(t, made)
	proxy.Hold()
	for _, item := range [][]byte{[]byte("small"), bytes.Repeat([]byte("x"), 1<<20)} {
		took := triggertest.Quickly(trigger.MeasureTimeout, func() {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := made.(trigger.Pusher).Push(ctx, item); err == nil {
				t.Error("pushed into a black hole")
			}
		})
		if took >= trigger.MeasureTimeout {
			t.Errorf("Push outlives its context by %v", took)
		}
	}
}
