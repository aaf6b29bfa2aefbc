package podenv

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Argv returns the command line of a container as a process: command, then args, with the references $(NAME) to
// variables of env expanded. It fails when there is no command, since a process has no image whose entrypoint could
// take its place, and when an argument cannot be passed to a process.
func Argv(container *corev1.Container, env *Env) ([]string, error) {
	argv, err := argv(container, env, longestString())
	if err != nil {
		return nil, fmt.Errorf("container %q: %w", container.Name, err)
	}
	return argv, nil
}

func argv(container *corev1.Container, env *Env, longest int) ([]string, error) {
	if len(container.Command) == 0 {
		return nil, errors.New("has no command: a process has no image whose entrypoint could run; " +
			"set command, for example [\"/bin/sh\", \"-c\", \"…\"]")
	}
	argv := make([]string, 0, len(container.Command)+len(container.Args))
	room := maxTotal
	add := func(field string, values []string) error {
		for i, value := range values {
			argument, err := expand(value, env.Lookup, min(longest, room))
			if err != nil {
				return fmt.Errorf("%s[%d]: with all references expanded it is more than a process can be given: at most "+
					"%d bytes in one argument, and %d bytes in all; pass large data in a file or on standard input",
					field, i, longest, maxTotal)
			}
			if strings.IndexByte(argument, 0) >= 0 {
				return fmt.Errorf("%s[%d]: %w", field, i, errNUL)
			}
			room = max(room-len(argument)-1, 0)
			argv = append(argv, argument)
		}
		return nil
	}
	if err := add("command", container.Command); err != nil {
		return nil, err
	}
	if argv[0] == "" {
		return nil, errors.New("command[0]: is empty; it must name the program to run")
	}
	if err := add("args", container.Args); err != nil {
		return nil, err
	}
	return argv, nil
}
