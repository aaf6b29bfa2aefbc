package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Exit codes of a shell for a command that it cannot run.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// defaultPath is where commands are looked up if Env holds no PATH, as container images have it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookUp returns the path to be executed in dir. The error is a *StartError.
func lookUp(args []string, dir string, env []string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", &StartError{Code: codeNotFound, Message: "there is no command: give the container a command"}
	}
	name := args[0]
	if strings.Contains(name, "/") {
		if err := checkExecutable(inDir(dir, name)); err != nil {
			if e := checkDir(dir); e != nil {
				return "", e
			}
			return "", err
		}
		return name, nil
	}
	path := pathOf(env)
	var denied *StartError
	for _, entry := range filepath.SplitList(path) {
		if entry == "" {
			entry = "."
		}
		// "./x" and not "x", since a path without a slash would not be one.
		candidate := entry + "/" + name
		err := checkExecutable(inDir(dir, candidate))
		if err == nil {
			return candidate, nil
		}
		if err.Code == codeNotExecutable && denied == nil {
			denied = err
		}
	}
	if e := checkDir(dir); e != nil {
		return "", e
	}
	if denied != nil {
		return "", denied
	}
	return "", &StartError{
		Code: codeNotFound,
		Message: fmt.Sprintf("command %q is not found in PATH %q: install it, give its full path, or set PATH in env",
			name, path),
		Err: fs.ErrNotExist,
	}
}

// pathOf returns PATH; of several the first, which is the one that programs see.
func pathOf(env []string) string {
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			return path
		}
	}
	return defaultPath
}

func inDir(dir, path string) string {
	if dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

func checkExecutable(path string) *StartError {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return &StartError{Code: codeNotFound, Err: err,
			Message: fmt.Sprintf("command %q does not exist: correct the path of the command", path)}
	case err != nil:
		return &StartError{Code: codeNotExecutable, Err: err,
			Message: fmt.Sprintf("command %q cannot be run: %v", path, err)}
	case info.IsDir():
		return &StartError{Code: codeNotExecutable, Err: syscall.EISDIR,
			Message: fmt.Sprintf("command %q is a directory: it must be a program", path)}
	case info.Mode()&0o111 == 0:
		return &StartError{Code: codeNotExecutable, Err: fs.ErrPermission,
			Message: fmt.Sprintf("command %q is not executable: chmod +x it, or run it by its interpreter", path)}
	}
	return nil
}

func checkDir(dir string) error {
	if dir == "" {
		return nil
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &StartError{Code: codeNotExecutable, Err: err,
			Message: fmt.Sprintf("working directory %q does not exist: create it, or correct workingDir", dir)}
	case err != nil:
		return &StartError{Code: codeNotExecutable, Err: err,
			Message: fmt.Sprintf("working directory %q cannot be used: %v", dir, err)}
	case !info.IsDir():
		return &StartError{Code: codeNotExecutable, Err: syscall.ENOTDIR,
			Message: fmt.Sprintf("working directory %q is not a directory: correct workingDir", dir)}
	}
	return nil
}

// startError explains an error of the system that a start gave although lookUp found nothing wrong.
func startError(spec Spec, path string, err error) error {
	if e := checkDir(spec.Dir); e != nil {
		return e
	}
	e := &StartError{Code: codeNotExecutable, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Code = codeNotFound
		e.Message = fmt.Sprintf("command %q cannot be run: the interpreter that its first line names, or its loader, "+
			"does not exist: install it", path)
	case errors.Is(err, syscall.ENOEXEC):
		e.Message = fmt.Sprintf("command %q is neither a program for this system nor a script: "+
			"a script begins with a line such as #!/bin/sh", path)
	case errors.Is(err, fs.ErrPermission):
		e.Message = fmt.Sprintf("command %q or working directory %q may not be used by this user: "+
			"change their permissions", path, spec.Dir)
	case errors.Is(err, syscall.E2BIG):
		e.Message = fmt.Sprintf("command %q cannot be run: its arguments and environment are larger than the system "+
			"allows (on Linux 128 KiB each, about 2 MiB in all): pass large data in a file or on a queue", path)
	case errors.Is(err, syscall.EINVAL) && holdsNUL(spec):
		e.Message = fmt.Sprintf("command %q cannot be run: an argument or a variable holds a NUL byte, "+
			"which no process can be given", path)
	default:
		e.Temporary = isTemporary(err)
		e.Message = fmt.Sprintf("command %q cannot be run: %v", path, err)
	}
	return e
}

func holdsNUL(spec Spec) bool {
	for _, list := range [][]string{spec.Args, spec.Env, {spec.Dir, spec.Label}} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return true
			}
		}
	}
	return false
}

// isTemporary tells whether the machine is short of something.
func isTemporary(err error) bool {
	for _, short := range []error{
		syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY, syscall.EIO,
		errNoKeeper,
	} {
		if errors.Is(err, short) {
			return true
		}
	}
	return false
}
