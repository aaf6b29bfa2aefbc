// Package redisserver serves the Redis that `offboard up` brings along, so that nothing need be installed or
// configured: a redis-server or valkey-server of this machine with an append-only file in a folder of ours, or, where
// there is none, one inside this process that keeps its data in memory.
//
// It starts, restarts and ends that server; it knows nothing of queues, triggers or Jobs.
package redisserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// defaultPort is the port that is tried first; lastPorts is how many are tried.
const (
	defaultPort = 6379
	portsTried  = 200
)

// Delays between attempts to restart a server that has died.
const (
	restartFirst = 100 * time.Millisecond
	restartMost  = 5 * time.Second
)

// Options say where the server keeps its data and what it is to be like.
type Options struct {
	// Dir is the folder for data, log and locks; it is made where it is missing. No two servers use one folder.
	Dir string
	// Log receives what is worth telling an operator; nil means nothing.
	Log *slog.Logger
	// Port is the port that is tried first, then those after it; 0 means 6379.
	Port int
	// InMemory forces the server inside this process.
	InMemory bool
}

// Server is a running Redis. Its address stays the same until Stop.
type Server struct {
	options Options
	binary  string
	port    int
	version string
	memory  *memoryServer
	locks   *locks

	// running belongs to the supervision while that lasts.
	running *process
	// cancel begins the end; supervised is closed when the supervision has ended.
	cancel     context.CancelFunc
	supervised chan struct{}
}

// Start starts the server and waits until it answers, which takes as long as it loads its data. ctx bounds the start
// only. It fails when another process uses the folder.
func Start(ctx context.Context, options Options) (*Server, error) {
	if options.Log == nil {
		options.Log = slog.New(slog.DiscardHandler)
	}
	if options.Port == 0 {
		options.Port = defaultPort
	}
	folder, err := prepare(options.Dir)
	if err != nil {
		return nil, err
	}
	options.Dir = folder
	server := &Server{options: options, supervised: make(chan struct{})}
	if !options.InMemory {
		server.binary = findBinary()
	}
	if server.locks, err = lock(ctx, folder, options.Log); err != nil {
		return nil, err
	}
	if err := server.start(ctx); err != nil {
		server.locks.release()
		return nil, err
	}
	return server, nil
}

// prepare makes the folder and returns its real path, by which a server knows it.
func prepare(folder string) (string, error) {
	if folder == "" {
		return "", errors.New("embedded redis: no folder is given")
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("embedded redis: make the folder: %w", err)
	}
	absolute, err := filepath.Abs(folder)
	if err != nil {
		return "", fmt.Errorf("embedded redis: %w", err)
	}
	path, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		return "", fmt.Errorf("embedded redis: %w", err)
	}
	return path, nil
}

// findBinary returns the path of a server program; "" when there is none.
func findBinary() string {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (s *Server) start(ctx context.Context) error {
	start := s.startProcess
	if s.binary == "" {
		s.warnInMemory()
		start = s.startMemory
	}
	// Another process may take a port at any moment: whether it is free shows when the server has it.
	for port := s.options.Port; port < s.options.Port+portsTried && port <= maxPort; port++ {
		err := start(ctx, port)
		if err == nil {
			s.port = port
			// The server outlives the context of the start.
			supervision, cancel := context.WithCancel(context.WithoutCancel(ctx))
			s.cancel = cancel
			go s.supervise(supervision)
			return nil
		}
		if !errors.Is(err, errPortTaken) {
			return fmt.Errorf("embedded redis: %w", err)
		}
	}
	return fmt.Errorf("embedded redis: no port from %d on is free on 127.0.0.1; give the triggers an address, "+
		"or free a port", s.options.Port)
}

// maxPort is the highest TCP port.
const maxPort = 65535

func (s *Server) startProcess(ctx context.Context, port int) error {
	started, err := launch(ctx, s.binary, s.options.Dir, port, s.locks.data, processAttributes())
	if err != nil {
		return err
	}
	s.running, s.version = started, started.version
	return nil
}

func (s *Server) startMemory(ctx context.Context, port int) error {
	started, err := startMemory(ctx, port)
	if err != nil {
		return err
	}
	s.memory = started
	return nil
}

// warnInMemory says loudly what the fallback means, also for items of an earlier run.
func (s *Server) warnInMemory() {
	if s.options.InMemory {
		s.options.Log.Warn("The embedded Redis keeps its queues in memory, and they are lost when it ends")
	} else {
		s.options.Log.Warn("No redis-server or valkey-server is on the PATH: the embedded Redis keeps its queues in " +
			"memory, and they are lost when it ends. Install redis-server to keep them on disk.")
	}
	if len(appendOnlyFiles(s.options.Dir)) > 0 {
		s.options.Log.Warn("The queues of an earlier run are on disk and are not seen by the embedded Redis in memory; "+
			"they are back when redis-server is.", "folder", s.options.Dir)
	}
}

// Addr returns host:port.
func (s *Server) Addr() string { return address(s.port) }

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// InMemory tells whether the data is lost when this process ends.
func (s *Server) InMemory() bool { return s.memory != nil }

// Kind says in words what serves, for example "redis-server 7.0.15 (/usr/bin/redis-server)".
func (s *Server) Kind() string {
	if s.InMemory() {
		return "in-memory"
	}
	return fmt.Sprintf("%s %s (%s)", filepath.Base(s.binary), s.version, s.binary)
}

// Stop ends the server in order, its data on disk. When ctx ends first, the server is killed, which loses nothing
// either unless the machine fails at the same time.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	<-s.supervised // from here on nobody starts another process
	defer s.locks.release()
	if s.InMemory() {
		s.memory.stop()
		return nil
	}
	return s.running.end(ctx)
}

// supervise restarts a server that dies, on the same port, until ctx ends; and it brings the data to the disk.
func (s *Server) supervise(ctx context.Context) {
	defer close(s.supervised)
	if s.InMemory() {
		<-ctx.Done()
		return
	}
	disk := newSyncer(s.options.Dir, s.options.Log)
	delay := restartFirst
	for {
		since := time.Now()
		disk.until(ctx, s.running.exited)
		if ctx.Err() != nil {
			return
		}
		if time.Since(since) > restartMost {
			delay = restartFirst
		}
		s.options.Log.WarnContext(ctx, "The embedded Redis has died and is started again; nothing is lost",
			"address", s.Addr(), "cause", s.running.cause(), "log", logPath(s.options.Dir))
		started := s.restart(ctx, &delay)
		if started == nil {
			return
		}
		s.running = started
	}
}

// restart tries until the server is up; nil when ctx has ended.
func (s *Server) restart(ctx context.Context, delay *time.Duration) *process {
	for reported := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(*delay):
		}
		*delay = min(2**delay, restartMost)
		started, err := launch(ctx, s.binary, s.options.Dir, s.port, s.locks.data, processAttributes())
		switch {
		case err == nil && ctx.Err() == nil:
			return started
		case err == nil:
			_ = started.end(context.WithoutCancel(ctx))
			return nil
		case ctx.Err() == nil && !reported:
			reported = true
			s.options.Log.ErrorContext(ctx, "The embedded Redis does not start again; trying until it does",
				"address", s.Addr(), "error", err)
		}
	}
}
