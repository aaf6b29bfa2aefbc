package redisserver

import (
	"context"
	"errors"
	"syscall"

	"github.com/alicebob/miniredis/v2"
)

// memoryServer is a Redis inside this process.
type memoryServer struct{ redis *miniredis.Miniredis }

// startMemory starts it on the port.
func startMemory(ctx context.Context, port int) (*memoryServer, error) {
	if listens(ctx, port) {
		return nil, errPortTaken
	}
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // made for tests, its keys expire by command unless told to follow the clock
	if err := server.StartAddr(address(port)); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, errPortTaken
		}
		return nil, err
	}
	return &memoryServer{redis: server}, nil
}

func (m *memoryServer) stop() { m.redis.Close() }
