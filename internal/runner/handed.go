package runner

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"time"
)

// handed runs the command with the item that the Job was handed. Whoever made the Job settles the item by its outcome.
func (r *run) handed(path string, signals *signals) (int, error) {
	id, attempt := r.getenv(IDVariable), cmp.Or(r.getenv(AttemptVariable), "1")
	if end, is := stopped(signals.untilEnd); is {
		return exitSignal + int(end), fmt.Errorf("%w: the command was not started", end)
	}
	signals.starting.Store(true)
	command, err := r.startHanded(path)
	if err != nil {
		return err.code, err
	}
	ended, waitErr := command.finish(signals)
	if waitErr != nil {
		return ended.code, waitErr
	}
	r.say("item %s attempt %s: %s", id, attempt, ended)
	return ended.code, nil
}

// handedError is why the command does not run with the item that was handed, and the exit code.
type handedError struct {
	error
	code int
}

func (e *handedError) Unwrap() error { return e.error }

func (r *run) startHanded(path string) (*command, *handedError) {
	env := r.environment()
	if name := r.getenv(FileVariable); name != "" {
		return r.startWithFile(path, env, name)
	}
	item, set := r.lookup(ItemVariable)
	if !set {
		return nil, &handedError{fmt.Errorf("%s says that this Job was handed an item, but neither %s nor %s is set: "+
			"let spec.delivery.env be %s, or name a spec.delivery.file", IDVariable, ItemVariable, FileVariable,
			ItemVariable), ExitUsage}
	}
	r.report([]byte(item))
	command, err := r.launch(path, env, []byte(item))
	if err != nil {
		return nil, &handedError{fmt.Errorf("start the command: %w", err), startCode(err)}
	}
	return command, nil
}

// startWithFile gives the file itself to the command, so that an item may be of any size.
func (r *run) startWithFile(path string, env []string, name string) (*command, *handedError) {
	unusable := func(err error) (*command, *handedError) {
		return nil, &handedError{fmt.Errorf("the item cannot be read from the file that %s names: %w", FileVariable, err),
			ExitUsage}
	}
	file, err := os.Open(name)
	if err != nil {
		return unusable(err)
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, MaxReport)
	n, err := file.ReadAt(head, 0)
	if err != nil && err != io.EOF { //nolint:errorlint // as ReadAt returns it
		return unusable(err)
	}
	r.report(head[:n])
	cmd := r.prepare(path, env)
	cmd.Stdin = file
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, &handedError{fmt.Errorf("start the command: %w", err), startCode(err)}
	}
	return &command{cmd: cmd, began: began}, nil
}
