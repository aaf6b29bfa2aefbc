package process

import (
	"os"
	"strconv"
	"syscall"
)

// closeEachOnExec marks every open descriptor but the standard ones, which dir lists, to be closed by an exec. All that
// the Go runtime opens are marked so already.
func closeEachOnExec(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
