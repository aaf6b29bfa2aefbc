package mongodb_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/youmark/pkcs8"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/offboard-dev/offboard/internal/servertest"
	"github.com/offboard-dev/offboard/internal/trigger"
	"github.com/offboard-dev/offboard/internal/trigger/mongodb"
	"github.com/offboard-dev/offboard/internal/trigger/triggertest"
)

func TestMain(m *testing.M) {
	serveDNS()
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) // the DNS server serves to the end
}

type config = map[string]string

// The user of the servers that ask for one, whom the database work knows. The password has what a URL must encode.
const (
	user     = "us er"
	password = "p@ss/w:rd%-" + triggertest.Canary
)

// server is a FerretDB, which speaks MongoDB's protocol, with what is needed to connect to it.
type server struct {
	*servertest.Process
	certs *servertest.Certs
}

// start starts a server that keeps its documents over a restart. With TLS it requires a certificate of its clients.
func start(tb testing.TB, withTLS, withUser bool) *server {
	tb.Helper()
	folder := tb.TempDir()
	made := &server{certs: servertest.NewCerts(tb, folder)}
	made.Process = servertest.Start(tb, folder, servertest.Program{
		Name: servertest.Tool(tb, "ferretdb"), Ports: 1,
		Args: func(p *servertest.Process) ([]string, error) {
			args := []string{
				"--handler=sqlite", "--sqlite-url=file:" + p.Folder() + "/", "--state-dir=" + p.Folder(),
				"--debug-addr=-", "--telemetry=disable",
			}
			if withUser {
				args = append(args, "--test-enable-new-auth", "--setup-database=work", "--setup-username="+user,
					"--setup-password="+password)
			}
			if withTLS {
				return append(args, "--listen-addr=", "--listen-tls="+p.Addr(0), "--listen-tls-ca-file="+made.certs.CAFile,
					"--listen-tls-cert-file="+made.certs.ServerCertFile, "--listen-tls-key-file="+made.certs.ServerKeyFile), nil
			}
			return append(args, "--listen-addr="+p.Addr(0)), nil
		},
		Ready: func(ctx context.Context, p *servertest.Process) error {
			if !strings.Contains(p.Log(), "Listening on") {
				return errors.New("it is not up")
			}
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr(0))
			if err != nil {
				return err
			}
			return conn.Close()
		},
	})
	return made
}

// login is the part of a connection string that names the user.
func login() string { return url.UserPassword(user, password).String() + "@" }

// client returns a client, closed with the test.
func (s *server) client(tb testing.TB, login string) *mongo.Client {
	tb.Helper()
	chosen := options.Client().ApplyURI("mongodb://" + login + s.Addr(0) + "/work")
	if strings.Contains(s.Log(), "TLS") {
		chosen.SetTLSConfig(s.certs.ClientConfig())
	}
	made, err := mongo.Connect(chosen)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = made.Disconnect(context.Background()) })
	return made
}

// insert puts documents with the state into the collection of the database work.
func insert(tb testing.TB, client *mongo.Client, collection, state string, count int) {
	tb.Helper()
	var documents []any
	for i := range count {
		documents = append(documents, bson.D{{Key: "state", Value: state}, {Key: "n", Value: i}})
	}
	if _, err := client.Database("work").Collection(collection).InsertMany(tb.Context(), documents); err != nil {
		tb.Fatal(err)
	}
}

// waiting returns the metadata of a query for what waits, and more.
func waiting(collection string, more ...config) config {
	query := config{"dbName": "work", "collection": collection, "query": `{"state": "waiting"}`, "queryValue": "1"}
	return triggertest.Merge(append([]config{query}, more...)...)
}

// open makes a trigger, closed with the test.
func open(tb testing.TB, clients *mongodb.Clients, cfg trigger.Config) trigger.Trigger {
	tb.Helper()
	made, err := mongodb.Type(clients).New(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(made.Close)
	return made
}

// encrypted encrypts a private key.
func encrypted(tb testing.TB, key, password string) string {
	tb.Helper()
	block, _ := pem.Decode([]byte(key))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := pkcs8.MarshalPrivateKey(parsed, []byte(password), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}))
}

// ports holds the port that the servers of a name have in DNS.
var ports sync.Map

// serveDNS lets this process resolve names by a server of its own: db.NAME.test is served by one at the port of NAME.
func serveDNS() {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", socket.LocalAddr().String())
	}}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			var message dnsmessage.Message
			if message.Unpack(buffer[:n]) != nil || len(message.Questions) != 1 {
				continue
			}
			message.Additionals, message.Response = nil, true
			message.RCode = dnsmessage.RCodeNameError
			if body := resolve(message.Questions[0]); body != nil {
				message.RCode = dnsmessage.RCodeSuccess
				message.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{
						Name: message.Questions[0].Name, Type: message.Questions[0].Type, Class: dnsmessage.ClassINET, TTL: 60,
					},
					Body: body,
				}}
			}
			if answer, err := message.Pack(); err == nil {
				_, _ = socket.WriteTo(answer, from)
			}
		}
	}()
}

// resolve answers one question; nil means that there is no such name.
func resolve(question dnsmessage.Question) dnsmessage.ResourceBody {
	labels := strings.Split(question.Name.String(), ".") // _mongodb._tcp.db.NAME.test. or one.db.NAME.test.
	if len(labels) < 4 || labels[len(labels)-2] != "test" {
		return nil
	}
	port, known := ports.Load(labels[len(labels)-3])
	switch {
	case !known:
		return nil
	case question.Type == dnsmessage.TypeSRV:
		target := "one." + strings.Join(labels[len(labels)-4:], ".")
		return &dnsmessage.SRVResource{Port: uint16(port.(int)), Target: dnsmessage.MustNewName(target)}
	case question.Type == dnsmessage.TypeA && labels[0] == "one":
		return &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}
	default:
		return nil
	}
}

// portOf is the port of a server, as parameters have it.
func (s *server) portOf() string { return strconv.Itoa(s.Port(0)) }
