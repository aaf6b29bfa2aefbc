package runner

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that reach the command. Those that a terminal uses to stop and continue a whole process
// group are not among them: they keep their meaning for the runner.
var passedOn = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
}

// endSignal is a signal that asked the runner to end before a command was there to take it.
type endSignal syscall.Signal

func (s endSignal) Error() string { return "stopped by " + unix.SignalName(syscall.Signal(s)) }

// signals holds the signals of the process from the moment that they must no longer simply end it.
type signals struct {
	caught chan os.Signal
	// brokenPipe is never read. Catching the signal makes a closed standard output an error instead of a sudden end
	// with an item in hand; unlike ignoring it, that is not inherited by the command.
	brokenPipe chan os.Signal
	// untilEnd ends, with an endSignal as its cause, when a signal asks for the end before there is a command.
	untilEnd context.Context
	end      context.CancelCauseFunc
	watching *watching
	// starting tells that the command is being started. What comes from then on is early: it is the command's, but
	// cannot be passed on yet. early is read once watching has stopped.
	starting atomic.Bool
	early    []syscall.Signal
	// asked tells that a signal has asked for the end, before there was a command or since.
	asked atomic.Bool
}

// catch begins to catch signals. Those that the runner was started to ignore, as under nohup, stay ignored, for the
// command too.
func catch() *signals {
	s := &signals{caught: make(chan os.Signal, 16), brokenPipe: make(chan os.Signal, 1)}
	s.untilEnd, s.end = context.WithCancelCause(context.Background())
	for _, sig := range passedOn {
		if !signal.Ignored(sig) {
			signal.Notify(s.caught, sig)
		}
	}
	signal.Notify(s.brokenPipe, syscall.SIGPIPE)
	s.watching = s.watch(func(sig syscall.Signal) {
		switch {
		case s.asksForTheEnd(sig):
			s.end(endSignal(sig))
		case s.starting.Load():
			s.early = append(s.early, sig)
		}
	})
	return s
}

// asksForTheEnd tells, and notes, whether the signal does.
func (s *signals) asksForTheEnd(sig syscall.Signal) bool {
	if sig == syscall.SIGUSR1 || sig == syscall.SIGUSR2 {
		return false
	}
	s.asked.Store(true)
	return true
}

// passTo passes signals on to the process from now on, also one that came while it was being started.
func (s *signals) passTo(process *os.Process) *watching {
	s.watching.stop()
	pass := func(sig syscall.Signal) {
		s.asksForTheEnd(sig)
		if !fromTerminal(sig) {
			// An error means that the process has ended.
			_ = process.Signal(sig)
		}
	}
	if end := (endSignal)(0); errors.As(context.Cause(s.untilEnd), &end) {
		pass(syscall.Signal(end))
	}
	for _, sig := range s.early {
		pass(sig)
	}
	s.watching = s.watch(pass)
	return s.watching
}

// catchUp notes the signals that have come and nobody has handled, once nobody handles them any more. A signal to the
// whole process group, as of Ctrl-C, may end the command before it is noticed here.
func (s *signals) catchUp() {
	// Ending a channel waits until those that the process has received have been delivered, to the other channel too.
	delivered := make(chan os.Signal, 1)
	signal.Notify(delivered, syscall.SIGURG) // which the runtime catches in any case
	signal.Stop(delivered)
	for {
		select {
		case sig := <-s.caught:
			s.asksForTheEnd(sig.(syscall.Signal))
		default:
			return
		}
	}
}

// release gives the signals their usual meaning again.
func (s *signals) release() {
	signal.Stop(s.caught)
	signal.Stop(s.brokenPipe)
	s.watching.stop()
	s.end(nil)
}

// watching is a goroutine that handles signals until stop.
type watching struct {
	quit, done chan struct{}
}

func (s *signals) watch(handle func(syscall.Signal)) *watching {
	w := &watching{quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			select {
			case sig := <-s.caught:
				handle(sig.(syscall.Signal))
			case <-w.quit:
				return
			}
		}
	}()
	return w
}

// stop ends the goroutine and waits for it. It may be called again.
func (w *watching) stop() {
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	<-w.done
}

// fromTerminal tells whether the terminal has sent the signal to the command already: Ctrl-C and Ctrl-\ reach every
// process of the foreground group, and many programs take a second one for a demand to end at once.
func fromTerminal(sig syscall.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT {
		return false
	}
	terminal, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = terminal.Close() }()
	foreground, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}
