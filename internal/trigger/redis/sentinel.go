package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/rueidis"
)

// masterCheck is how often the sentinels are asked whether the master is still the same. A master that they replace
// closes its connections as a rule; one that is cut off together with this process does not.
const masterCheck = 5 * time.Second

// sentinels returns the settings by which the sentinels themselves are reached.
func (s settings) sentinels() settings {
	return settings{
		topology: sentinelItself, addresses: s.addresses,
		username: s.sentinelUsername, password: s.sentinelPassword, withTLS: s.withTLS, tls: s.tls,
	}
}

// openMaster opens a session at the master that the sentinel names
// (https://redis.io/docs/latest/develop/reference/sentinel-clients).
func openMaster(ctx context.Context, s settings, sentinel string, invalidated func([]string)) (*session, error) {
	address, err := masterOf(ctx, s, sentinel)
	if err != nil {
		return nil, explain(err, sentinel, s.sentinels())
	}
	opened, err := openSession(ctx, s, address, invalidated)
	if err != nil {
		return nil, explain(err, address, s)
	}
	if err := opened.isMaster(ctx); err != nil {
		opened.close()
		return nil, explain(err, address, s)
	}
	return opened, nil
}

// masterOf asks a sentinel for the master's address.
func masterOf(ctx context.Context, s settings, sentinel string) (string, error) {
	answer, err := ask(ctx, s.sentinels(), sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.sentinelMaster)
	if err != nil && !rueidis.IsRedisNil(err) {
		return "", err
	}
	if answer == nil {
		return "", fmt.Errorf("knows no master %q; correct sentinelMaster", s.sentinelMaster)
	}
	return masterAddress(answer)
}

// masterAddress reads the answer to SENTINEL GET-MASTER-ADDR-BY-NAME.
func masterAddress(answer any) (string, error) {
	parts, ok := answer.([]any)
	if !ok || len(parts) != 2 {
		return "", errShape
	}
	host, isHost := parts[0].(string)
	port, isPort := parts[1].(string)
	if !isHost || !isPort || !validHost(host) || !validPort(port) {
		return "", errShape
	}
	return net.JoinHostPort(host, port), nil
}

// isMaster returns an error when the server is a replica; a user who may not ask is believed the sentinels.
func (s *session) isMaster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := s.client.Do(ctx, s.client.B().Role().Build()).ToAny()
	if err != nil {
		if isNoPermission(err) {
			return nil
		}
		return err
	}
	if parts, ok := answer.([]any); !ok || len(parts) == 0 || parts[0] != "master" {
		return errors.New("is not the master that the sentinels name; they may be about to promote another")
	}
	return nil
}

// otherMaster tells whether the first sentinel that answers names another master than the one at the address.
func otherMaster(ctx context.Context, s settings, address string) bool {
	for _, sentinel := range s.servers() {
		if master, err := masterOf(ctx, s, sentinel); err == nil {
			return master != address
		}
	}
	return false
}
