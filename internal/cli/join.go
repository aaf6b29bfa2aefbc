package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// joinCommand is for the container that the operator puts in front of others when an item is too large for one Secret.
func (a *app) joinCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "join PART... TARGET",
		Short:  "Put a file together from its parts",
		Hidden: true,
		Long: `Write the content of all parts, one after the other, into the file TARGET, which everybody may read and nobody
change. It appears only when it is whole.

` + exitHelp,
		Example: "  offboard join /parts/0 /parts/1 /whole/item",
		Args:    usageArgs(cobra.MinimumNArgs(2)),
		RunE: func(_ *cobra.Command, args []string) error {
			return join(args[:len(args)-1], args[len(args)-1])
		},
	}
}

func join(parts []string, target string) (err error) {
	const unfinished = ".part"
	file, err := os.Create(target + unfinished)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = os.Remove(file.Name())
		}
	}()
	for _, part := range parts {
		if err := appendFile(file, part); err != nil {
			return err
		}
	}
	if err := file.Chmod(0o444); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), target)
}

func appendFile(to io.Writer, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("copy %s: %w", path, err)
	}
	return nil
}
