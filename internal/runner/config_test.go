package runner

import (
	"strings"
	"testing"
)

func TestNewConfig(t *testing.T) {
	t.Parallel()
	base := map[string]string{"REDIS_HOST": "h", "REDIS_LIST": "l"}
	for name, test := range map[string]struct {
		env  map[string]string
		want config
	}{
		"defaults": {nil, config{host: "h", port: "6379", list: "l"}},
		"all": {
			map[string]string{
				"REDIS_PORT": "7000", "REDIS_USER": "u", "REDIS_PASSWORD": "p", "REDIS_DB": "3", "REDIS_TLS": "true",
			},
			config{host: "h", port: "7000", list: "l", user: "u", password: "p", db: 3, tls: true},
		},
		"service link": {
			map[string]string{"REDIS_PORT": "tcp://10.0.0.7:6380"}, config{host: "h", port: "6380", list: "l"},
		},
		"odd list": {map[string]string{"REDIS_LIST": " a\n\"b\" "}, config{host: "h", port: "6379", list: " a\n\"b\" "}},
	} {
		got, err := newConfig(lookup(base, test.env))
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, test.want)
		}
	}
	for name, test := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"nothing": {
			map[string]string{"REDIS_HOST": "", "REDIS_LIST": ""},
			[]string{"REDIS_HOST is not set", "REDIS_LIST is not set"},
		},
		"port":          {map[string]string{"REDIS_PORT": "x"}, []string{`REDIS_PORT is "x": it must be a port number`}},
		"port 0":        {map[string]string{"REDIS_PORT": "0"}, []string{`REDIS_PORT is "0"`}},
		"port too high": {map[string]string{"REDIS_PORT": "65536"}, []string{`REDIS_PORT is "65536"`}},
		"db":            {map[string]string{"REDIS_DB": "-1"}, []string{`REDIS_DB is "-1": it must be a number, 0 or more`}},
		"tls":           {map[string]string{"REDIS_TLS": "maybe"}, []string{`REDIS_TLS is "maybe": it must be true`}},
	} {
		_, err := newConfig(lookup(base, test.env))
		for _, want := range test.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
}

func lookup(maps ...map[string]string) func(string) string {
	return func(name string) (value string) {
		for _, m := range maps {
			if v, found := m[name]; found {
				value = v
			}
		}
		return value
	}
}
