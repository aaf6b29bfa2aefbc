package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/errgroup"

	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/network"
)

// settings is all that makes one client differ from another; it stays comparable.
type settings struct {
	servers            string
	withTLS            bool
	tls                network.TLS
	sasl               string
	username, password string
	// These are for oauthbearer.
	tokenURI, scopes, extensions string
}

func newSettings(name string, values trigger.Values) settings {
	made := settings{
		servers: strings.Join(servers(name, values), ","), sasl: values.String(paramSASL),
		username: values.String(paramUsername), password: values.String(paramPassword),
	}
	if made.withTLS = values.String(paramTLS) == tlsEnable; made.withTLS {
		made.tls = network.TLSOf(values)
	}
	if name == kafkaType {
		made.tls.Insecure = made.withTLS && values.Bool(paramUnsafeSSL)
	}
	if made.sasl == saslOAuth {
		made.tokenURI, made.scopes = values.String(paramTokenURI), values.String(paramScopes)
		made.extensions = values.String(paramExtensions)
	}
	return made
}

// options returns how to connect and log in, without the tokens of oauthbearer.
func (s settings) options() ([]kgo.Opt, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(s.servers, ",")...), kgo.ClientID("offboard"),
		// A measurement is repeated soon: what fails is to be told, and not tried again until its time is over.
		kgo.DialTimeout(trigger.MeasureTimeout), kgo.RequestRetries(2), kgo.RequestTimeoutOverhead(trigger.MeasureTimeout),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(250 * time.Millisecond),
	}
	if s.withTLS {
		config, err := s.tls.Config()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	var mechanism sasl.Mechanism
	switch s.sasl {
	case saslPlain:
		mechanism = plain.Auth{User: s.username, Pass: s.password}.AsMechanism()
	case saslSCRAM256:
		mechanism = scram.Auth{User: s.username, Pass: s.password}.AsSha256Mechanism()
	case saslSCRAM512:
		mechanism = scram.Auth{User: s.username, Pass: s.password}.AsSha512Mechanism()
	default:
		return options, nil
	}
	return append(options, kgo.SASL(mechanism)), nil
}

// client asks the brokers of one cluster.
type client struct {
	settings settings
	kgo      *kgo.Client
	admin    *kadm.Client
	// failure is why there is no client; it is the library's, of options that contradict.
	failure error
	// tokens fetches tokens for oauthbearer; nil without.
	tokens *http.Client
}

func newClient(s settings, options []kgo.Opt) *client {
	made := &client{settings: s}
	if s.sasl == saslOAuth {
		made.tokens = &http.Client{Timeout: trigger.MeasureTimeout, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, IdleConnTimeout: 90 * time.Second,
		}}
		options = append(slices.Clip(options), kgo.SASL(made.oauth()))
	}
	if made.kgo, made.failure = kgo.NewClient(options...); made.failure == nil {
		made.admin = kadm.NewClient(made.kgo)
	}
	return made
}

func (c *client) stop() {
	if c.kgo != nil {
		c.kgo.Close()
	}
	if c.tokens != nil {
		c.tokens.CloseIdleConnections()
	}
}

// errToken is the error of a token that is not given.
var errToken = errors.New("no token")

// oauth logs in with a token, which is kept until shortly before it expires.
func (c *client) oauth() sasl.Mechanism {
	config := clientcredentials.Config{
		ClientID: c.settings.username, ClientSecret: c.settings.password, TokenURL: c.settings.tokenURI,
	}
	for scope := range strings.SplitSeq(c.settings.scopes, ",") {
		if scope = strings.TrimSpace(scope); scope != "" {
			config.Scopes = append(config.Scopes, scope)
		}
	}
	tokens := config.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, c.tokens))
	added, _ := extensions(c.settings.extensions)
	return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := tokens.Token()
		if err != nil {
			var refused *oauth2.RetrieveError
			if errors.As(err, &refused) {
				err = fmt.Errorf("HTTP status %s", refused.Response.Status) // the library quotes the reply
			}
			return oauth.Auth{}, fmt.Errorf("%w from oauthTokenEndpointUri: %s", errToken,
				network.Error("it", "", err, true, c.settings.password).Error())
		}
		return oauth.Auth{Token: token.AccessToken, Extensions: added}, nil
	})
}

// read returns the partitions of the topics, or of all topics of which the group has committed an offset, that are
// among the numbers; all of them when there are none.
func (c *client) read(ctx context.Context, group string, topics []string, numbers map[int32]bool) ([]partition, error) {
	if c.failure != nil {
		return nil, c.explain(c.failure, group)
	}
	var committed kadm.OffsetResponses
	var ends kadm.ListedOffsets
	readCommitted := func() (err error) {
		committed, err = c.admin.FetchOffsets(ctx, group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return nil // brokers differ in what they say of a group that has not committed yet
		}
		return err
	}
	var asking errgroup.Group
	if len(topics) > 0 {
		asking.Go(readCommitted)
	} else {
		if err := readCommitted(); err != nil {
			return nil, c.explain(err, group)
		}
		if topics = slices.Sorted(maps.Keys(committed)); len(topics) == 0 {
			return nil, fmt.Errorf("kafka at %s: group %q has committed no offset, so that its topics are not known; "+
				"give topic, or correct consumerGroup", c.settings.servers, group)
		}
	}
	asking.Go(func() (err error) {
		ends, err = c.admin.ListEndOffsets(ctx, topics...)
		return err
	})
	if err := asking.Wait(); err != nil {
		return nil, c.explain(err, group)
	}
	found, err := combine(topics, ends, committed, numbers)
	if err != nil {
		return nil, c.explain(err, group)
	}
	return found, nil
}

// combine makes partitions of what the brokers told of topics, and of a group.
func combine(
	topics []string, ends kadm.ListedOffsets, committed kadm.OffsetResponses, numbers map[int32]bool,
) ([]partition, error) {
	var found []partition
	for _, topic := range topics {
		before := len(found)
		for number, end := range ends[topic] {
			if end.Err != nil {
				return nil, fmt.Errorf("topic %q: %w", topic, end.Err)
			}
			if len(numbers) > 0 && !numbers[number] {
				continue
			}
			one := partition{topic: topic, number: number, committed: none, end: end.Offset}
			if offset, told := committed.Lookup(topic, number); told {
				if offset.Err != nil {
					return nil, fmt.Errorf("offset of topic %q: %w", topic, offset.Err)
				}
				one.committed = offset.At
			}
			found = append(found, one)
		}
		if len(found) == before {
			return nil, fmt.Errorf("topic %q has no partition that counts; correct partitionLimitation", topic)
		}
	}
	slices.SortFunc(found, func(a, b partition) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.number, b.number))
	})
	return found, nil
}

// explain says which cluster failed, what that means, and what would be right.
func (c *client) explain(err error, group string) error {
	hint := ""
	var closed *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, errToken):
		hint = "is not asked, because there is no token to log in with"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		hint = fmt.Sprintf("does not accept user %q with this password; correct username and password", c.settings.username)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		hint = fmt.Sprintf("does not offer sasl %s", c.settings.sasl)
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		hint = "has no such topic; make it, or correct topic"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed),
		errors.Is(err, kerr.ClusterAuthorizationFailed):
		hint = fmt.Sprintf("denies user %q the topic or group %q; allow to describe both", c.settings.username, group)
	case errors.Is(err, io.EOF) && c.settings.username != "":
		hint = fmt.Sprintf("closed the connection; it may not accept user %q with this password", c.settings.username)
	case errors.As(err, &closed), gone(err):
		hint = "closed the connection; it may require sasl, or expect TLS or none: correct sasl and tls"
	}
	return network.Error("kafka at "+c.settings.servers, hint, err, c.settings.withTLS, c.settings.password)
}

// gone tells whether the broker ended the connection. What else the network says, and time that is over, are no such
// end.
func gone(err error) bool {
	var below *net.OpError
	if errors.As(err, &below) {
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	}
	return kgo.IsRetryableBrokerErr(err) && !errors.Is(err, context.DeadlineExceeded)
}
