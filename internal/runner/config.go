package runner

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// config says where the item comes from.
type config struct {
	host, port     string
	user, password string
	list           string
	db             int
	tls            bool
}

const defaultPort = "6379"

// newConfig reads the variables of the environment, and returns all that is wrong with them at once.
func newConfig(getenv func(string) string) (config, error) {
	c := config{
		host:     getenv("REDIS_HOST"),
		port:     getenv("REDIS_PORT"),
		user:     getenv("REDIS_USER"),
		password: getenv("REDIS_PASSWORD"),
		list:     getenv("REDIS_LIST"),
	}
	var wrong []error
	if c.host == "" {
		wrong = append(wrong, errors.New("the variable REDIS_HOST is not set: it must name the host that Redis runs on"))
	}
	if c.list == "" {
		wrong = append(wrong, errors.New("the variable REDIS_LIST is not set: it must name the list to take an item from"))
	}
	if c.port == "" {
		c.port = defaultPort
	}
	// Kubernetes gives every container REDIS_PORT=tcp://ADDRESS:PORT when its namespace has a Service named redis.
	if link, err := url.Parse(c.port); err == nil && link.Scheme == "tcp" && link.Port() != "" {
		c.port = link.Port()
	}
	if n, err := strconv.ParseUint(c.port, 10, 16); err != nil || n == 0 {
		wrong = append(wrong, fmt.Errorf("the variable REDIS_PORT is %q: it must be a port number from 1 to 65535", c.port))
	}
	if text := getenv("REDIS_DB"); text != "" {
		var err error
		if c.db, err = strconv.Atoi(text); err != nil || c.db < 0 {
			wrong = append(wrong, fmt.Errorf("the variable REDIS_DB is %q: it must be a number, 0 or more", text))
		}
	}
	if text := getenv("REDIS_TLS"); text != "" {
		var err error
		if c.tls, err = strconv.ParseBool(text); err != nil {
			wrong = append(wrong, fmt.Errorf("the variable REDIS_TLS is %q: it must be true or false", text))
		}
	}
	return c, errors.Join(wrong...)
}

func (c config) address() string { return net.JoinHostPort(c.host, c.port) }
