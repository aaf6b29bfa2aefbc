package beanstalkd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// typeName is the trigger's type in manifests.
const typeName = "beanstalkd"

// Parameter names.
const (
	paramServer         = "server"
	paramTube           = "tube"
	paramValue          = "value"
	paramActivation     = "activationValue"
	paramIncludeDelayed = "includeDelayed"
	paramTimeout        = "timeout"
)

// defaultPort is the port that beanstalkd listens on unless told otherwise.
const defaultPort = "11300"

// params declares the parameters in the order of KEDA's schema.
func params() []trigger.Param {
	metadata := []trigger.Source{trigger.FromMetadata}
	return []trigger.Param{
		{
			Name: paramServer, Kind: trigger.String, Sources: metadata,
			Doc: "The server as host:port; port 11300 unless given.",
		},
		{
			Name: paramTube, Kind: trigger.String, Sources: metadata,
			Doc: "The name of the tube.",
		},
		{
			Name: paramValue, Kind: trigger.Float, Positive: true, Sources: metadata,
			Doc: "How many jobs of the tube one Job takes.",
		},
		{
			Name: paramActivation, Kind: trigger.Float, Optional: true, Sources: metadata,
			Doc: "The number of jobs above which the trigger is active; 0 unless given.",
		},
		{
			Name: paramIncludeDelayed, Kind: trigger.Bool, Optional: true, Sources: metadata,
			Doc: "Whether delayed jobs count besides those that are ready or reserved; false unless given.",
		},
		{
			Name: paramTimeout, Kind: trigger.String, Default: "30", Sources: metadata,
			Doc: "How long connecting may take: seconds, or a duration such as 500ms; " +
				"a measurement takes no longer than 5 seconds in any case.",
		},
	}
}

// settings is all that makes one connection differ from another.
type settings struct {
	// address is host:port.
	address string
	// timeout bounds connecting; 0 means that only the measurement does.
	timeout time.Duration
}

func newSettings(values trigger.Values) (made settings, err error) {
	if made.address, err = parseServer(values.String(paramServer)); err != nil {
		return settings{}, paramError(values, paramServer, err)
	}
	if made.timeout, err = parseTimeout(values.String(paramTimeout)); err != nil {
		return settings{}, paramError(values, paramTimeout, err)
	}
	return made, nil
}

// check finds what is wrong with values that are more than texts.
func check(values trigger.Values) []trigger.ParamError {
	var findings []trigger.ParamError
	for name, parse := range map[string]func(string) error{
		paramServer:  func(text string) error { _, err := parseServer(text); return err },
		paramTube:    checkTube,
		paramTimeout: func(text string) error { _, err := parseTimeout(text); return err },
	} {
		text := values.String(name)
		if text == "" {
			continue // decoding has said that it is missing
		}
		if err := parse(text); err != nil {
			findings = append(findings, paramError(values, name, err))
		}
	}
	return findings
}

func paramError(values trigger.Values, name string, problem error) trigger.ParamError {
	return trigger.ParamError{Key: values.Key(name), Value: values.String(name), Message: problem.Error()}
}

// parseServer returns host:port, with the default port where none is written.
func parseServer(text string) (address string, err error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		// No port: a name, an IPv4 address, or an IPv6 address with or without brackets.
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), defaultPort
	}
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "", strings.ContainsAny(host, "/@[] \t\r\n\x00,"),
		strings.Contains(host, ":") && net.ParseIP(host) == nil:
		return "", fmt.Errorf("is not an address; give host:port, for example beanstalkd.example:%s", defaultPort)
	case err != nil || number == 0:
		return "", errors.New("does not end in a port; give host:port with a port from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

// maxTube is how many bytes the name of a tube may have.
const maxTube = 200

// checkTube holds a name to what the protocol allows
// (https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt), so that it cannot be more than one word.
func checkTube(name string) error {
	const others = "-+/;.$_()"
	valid := len(name) <= maxTube && name[0] != '-'
	for _, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		valid = valid && (letter || strings.ContainsRune(others, r))
	}
	if !valid {
		return fmt.Errorf("is not the name of a tube; give at most %d letters, digits or characters of %s, "+
			"not beginning with a dash", maxTube, others)
	}
	return nil
}

// parseTimeout reads a duration. A number counts seconds, as KEDA's documentation has it; its code takes such a number
// for milliseconds, so that connecting has no less time here than there.
func parseTimeout(text string) (time.Duration, error) {
	const most = time.Hour // more than any measurement waits
	timeout, err := time.ParseDuration(text)
	if seconds, notNumber := strconv.ParseInt(text, 10, 64); notNumber == nil {
		timeout, err = time.Duration(max(min(seconds, int64(most/time.Second)), -1))*time.Second, nil
	}
	switch {
	case err != nil:
		return 0, errors.New(`is not a time; give a number of seconds, or a duration such as "500ms"`)
	case timeout < 0:
		return 0, errors.New("is negative; give 0 or more")
	}
	return min(timeout, most), nil
}

func threshold(values trigger.Values) trigger.Threshold {
	return trigger.Threshold{Target: values.Float(paramValue), Activation: values.Float(paramActivation)}
}

// metricName is KEDA's name for the trigger's value.
func metricName(values trigger.Values) string {
	return fmt.Sprintf("%s-%s", typeName, url.QueryEscape(values.String(paramTube)))
}
