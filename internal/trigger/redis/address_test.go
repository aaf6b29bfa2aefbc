package redis

import (
	"net"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis":                   "redis:6379",
		"redis:1":                 "redis:1",
		"redis.example.:65535":    "redis.example.:65535",
		"10.0.0.1":                "10.0.0.1:6379",
		"::1":                     "[::1]:6379",
		"[::1]":                   "[::1]:6379",
		"[::1]:7":                 "[::1]:7",
		"[fe80::1%eth0]:7":        "[fe80::1%eth0]:7",
		"/run/redis/redis.sock":   "/run/redis/redis.sock",
		"under_score.svc.cluster": "under_score.svc.cluster:6379",
	} {
		if got, problem := parseAddress(text, "6379"); got != want || problem != "" {
			t.Errorf("%q: %q, %q; want %q", text, got, problem, want)
		}
	}
	for _, text := range []string{
		"", ":", ":6379", "redis:", "redis:port", "redis:0", "redis:65536", "redis:-1", "redis:+1", "redis: 1", "a b", "a:b:c",
		"redis://redis:1", "unix:///x", "user@redis:1", "re\x00dis", "re\ndis:1", "[::1", "[::1]x", "[[::1]]:1",
	} {
		if got, problem := parseAddress(text, "6379"); problem == "" {
			t.Errorf("%q is taken as %q", text, got)
		}
	}
}

func TestSameAddress(t *testing.T) {
	t.Parallel()
	if !sameAddress("LocalHost:1", "127.0.0.1:1") || sameAddress("localhost:1", "127.0.0.1:2") || sameAddress("a:1", "127.0.0.1:1") {
		t.Error("localhost is 127.0.0.1, and nothing else is")
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{"redis:1", "[::1]:7", "/run/redis.sock", "redis://u:p@h:1", "a:b:c", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		address, problem := parseAddress(text, "6379")
		if (address == "") == (problem == "") {
			t.Fatalf("%q: %q, %q", text, address, problem)
		}
		if problem != "" || strings.HasPrefix(text, "/") {
			return
		}
		if host, port, err := net.SplitHostPort(address); err != nil || host == "" || !validPort(port) {
			t.Fatalf("%q gives %q: %v", text, address, err)
		}
		if again, problem := parseAddress(address, "6379"); again != address || problem != "" {
			t.Fatalf("%q gives %q, which gives %q, %q", text, address, again, problem)
		}
	})
}
