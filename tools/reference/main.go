// Command reference writes the reference documentation of the trigger types into a folder that exists:
//
//	reference FOLDER
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/offboard-dev/offboard/internal/trigger/all"
	"github.com/offboard-dev/offboard/internal/trigger/reference"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reference FOLDER")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write(folder string) error {
	pages, err := reference.Pages(all.Types())
	if err != nil {
		return err
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(page), 0o600); err != nil {
			return err
		}
	}
	return nil
}
