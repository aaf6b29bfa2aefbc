// Command take is the runner of the latency benchmark: it takes one item, which is the time of its push, unless it was
// handed one, and says how long ago that was when this process began. It links next to nothing, so that its own start
// costs next to nothing.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := take(time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "take:", err)
		os.Exit(1)
	}
}

func take(started time.Time) error {
	conn, err := net.Dial("tcp", net.JoinHostPort(os.Getenv("REDIS_HOST"), os.Getenv("REDIS_PORT")))
	if err != nil {
		return err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	item := os.Getenv("OFFBOARD_ITEM")
	if item == "" {
		if item, err = pop(conn, answers); err != nil {
			return err
		}
	}
	pushed, err := strconv.ParseInt(strings.TrimSpace(item), 10, 64)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "RPUSH %s %d\r\n", os.Getenv("RESULTS"), started.UnixNano()-pushed); err != nil {
		return err
	}
	_, err = answers.ReadString('\n')
	return err
}

func pop(conn net.Conn, answers *bufio.Reader) (string, error) {
	if _, err := fmt.Fprintf(conn, "LPOP %s\r\n", os.Getenv("REDIS_LIST")); err != nil {
		return "", err
	}
	length, err := answers.ReadString('\n')
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(length, "$") || strings.HasPrefix(length, "$-1") {
		return "", fmt.Errorf("a Job for no item: %s", length)
	}
	return answers.ReadString('\n')
}
