package trigger_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// nothing is a trigger that keeps the values it was made from.
type nothing struct{ values trigger.Values }

func (nothing) Measure(context.Context) (trigger.Measurement, error) {
	return trigger.Measurement{}, nil
}
func (nothing) Close() {}

func sample() trigger.Type {
	metadata, env, auth := trigger.FromMetadata, trigger.FromEnv, trigger.FromAuth
	zero := int64(0)
	return trigger.Type{
		Name: "sample",
		Params: []trigger.Param{
			{Name: "name", Kind: trigger.String, Sources: []trigger.Source{metadata}},
			{Name: "size", Kind: trigger.Int, Default: "5", Min: &zero, Sources: []trigger.Source{metadata}},
			{Name: "flag", Kind: trigger.Bool, Optional: true, Sources: []trigger.Source{metadata, env}},
			{Name: "mode", Kind: trigger.String, Optional: true, Allowed: []string{"slow", "fast"},
				Sources: []trigger.Source{metadata, auth}},
			{Name: "hosts", Aliases: []string{"host"}, Kind: trigger.List, Group: "connection",
				Sources: []trigger.Source{metadata, auth, env}},
			{Name: "password", Kind: trigger.String, Group: "connection", Secret: true,
				Sources: []trigger.Source{env, auth, metadata}},
			{Name: "pin", Kind: trigger.Int, Group: "connection", Secret: true,
				Sources: []trigger.Source{metadata, env, auth}},
			{Name: "token", Kind: trigger.String, Group: "connection", Sources: []trigger.Source{auth}},
			{Name: "account", Kind: trigger.String, Sources: []trigger.Source{env, metadata}},
		},
		Build: func(_ context.Context, _ trigger.Config, values trigger.Values) (trigger.Trigger, error) {
			return nothing{values: values}, nil
		},
		MetricName: func(values trigger.Values) string { return "sample-" + values.String("name") },
	}
}

type config = map[string]string

func TestNewDecodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name                string
		metadata, env, auth config
		check               func(v trigger.Values) bool
	}{
		{"metadata", config{"name": "n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.String("name") == "n" && v.Has("name") }},
		{"space is dropped", config{"name": " n n\n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.String("name") == "n n" }},
		{"default", config{"name": "n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.Int("size") == 5 && !v.Has("size") && v.Source("size") == "" }},
		{"empty means default", config{"name": "n", "account": "a", "size": " "}, nil, nil,
			func(v trigger.Values) bool { return v.Int("size") == 5 }},
		{"int", config{"name": "n", "account": "a", "size": "9223372036854775807"}, nil, nil,
			func(v trigger.Values) bool { return v.Int("size") == 1<<63-1 }},
		{"bool", config{"name": "n", "account": "a", "flag": "T"}, nil, nil,
			func(v trigger.Values) bool { return v.Bool("flag") }},
		{"no bool", config{"name": "n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return !v.Bool("flag") && v.List("hosts") == nil }},
		{"bool from env", config{"name": "n", "account": "a", "flagFromEnv": "F"}, config{"F": "1"}, nil,
			func(v trigger.Values) bool {
				return v.Bool("flag") && v.Source("flag") == trigger.FromEnv && v.Key("flag") == "flag"
			}},
		{"list", config{"name": "n", "account": "a", "hosts": " a, b ,,c"}, nil, nil,
			func(v trigger.Values) bool { return slices.Equal(v.List("hosts"), []string{"a", "b", "c"}) }},
		{"alias", config{"name": "n", "account": "a", "host": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.String("hosts") == "a" && v.Key("hosts") == "host" }},
		{"name before alias", config{"name": "n", "account": "a", "host": "a", "hosts": "b"}, nil, nil,
			func(v trigger.Values) bool { return v.String("hosts") == "b" }},
		{"auth before env", config{"name": "n", "account": "a", "hostsFromEnv": "H"}, config{"H": "env"}, config{"host": "auth"},
			func(v trigger.Values) bool { return v.String("hosts") == "auth" }},
		{"env of an alias", config{"name": "n", "account": "a", "hostFromEnv": "H"}, config{"H": "env"}, nil,
			func(v trigger.Values) bool { return v.String("hosts") == "env" }},
		{"empty falls through", config{"name": "n", "account": "a", "hostsFromEnv": "H"}, config{"H": "env"}, config{"hosts": " "},
			func(v trigger.Values) bool { return v.String("hosts") == "env" }},
		{"env before metadata", config{"name": "n", "account": "a", "accountFromEnv": "A"}, config{"A": "e"}, nil,
			func(v trigger.Values) bool { return v.String("account") == "e" }},
		{"unset env falls through", config{"name": "n", "account": "a", "accountFromEnv": "A"}, nil, nil,
			func(v trigger.Values) bool { return v.String("account") == "a" }},
		{"unknown keys are tolerated", config{"name": "n", "account": "a", "nmae": "x"}, nil, nil,
			func(v trigger.Values) bool { return v.String("name") == "n" }},
		{"auth cannot be given in metadata", config{"name": "n", "account": "a", "token": "x"}, nil, nil,
			func(v trigger.Values) bool { return !v.Has("token") && v.Known("token") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			made, err := sample().New(t.Context(), trigger.Config{Metadata: test.metadata, Env: test.env, Auth: test.auth})
			if err != nil {
				t.Fatal(err)
			}
			if values := made.(nothing).values; !test.check(values) {
				t.Errorf("decoded %+v", values)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for _, test := range []struct {
		name                string
		metadata, env, auth config
		want                []string
	}{
		{"missing", nil, nil, nil, []string{"sample", "name: is required; give name in metadata",
			"account: is required; give accountFromEnv in metadata or account in metadata"}},
		{"missing variable", config{"name": "n", "accountFromEnv": "ACC"}, nil, nil,
			[]string{"the environment variable ACC that accountFromEnv names is not set"}},
		{"no number", config{"name": "n", "account": "a", "size": "5.0"}, nil, nil,
			[]string{`size "5.0": is not a whole number`}},
		{"too big", config{"name": "n", "account": "a", "size": "9223372036854775808"}, nil, nil,
			[]string{`size "9223372036854775808": is out of range`}},
		{"too small", config{"name": "n", "account": "a", "size": "-1"}, nil, nil,
			[]string{`size "-1": is too small; give at least 0`}},
		{"no bool", config{"name": "n", "account": "a", "flag": "yes"}, nil, nil, []string{`flag "yes": is not a boolean`}},
		{"not allowed", config{"name": "n", "account": "a", "mode": "medium"}, nil, nil,
			[]string{`mode "medium": is not allowed; give slow or fast`}},
		{"value from env is not shown", config{"name": "n", "account": "a", "flagFromEnv": "FLAG"},
			config{"FLAG": secret}, nil, []string{"flag: is not a boolean", "environment variable FLAG"}},
		{"value from auth is not shown", config{"name": "n", "account": "a"}, nil, config{"mode": secret},
			[]string{"mode: is not allowed", "TriggerAuthentication"}},
		{"secret is not shown", config{"name": "n", "account": "a", "pin": secret}, nil, nil,
			[]string{"pin: is not a whole number"}},
		{"all at once", config{"size": "x", "flag": "y"}, nil, nil, []string{"name:", "size", "flag", "account:"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := sample().New(t.Context(), trigger.Config{Metadata: test.metadata, Env: test.env, Auth: test.auth})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error %q shows a secret", err)
			}
			if !errors.As(err, new(trigger.ParamError)) {
				t.Errorf("error %q is no ParamError", err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		metadata config
		hasAuth  bool
		want     []string // the findings as "warning: text" or "text", each by a part
	}{
		{"good", config{"name": "n", "account": "a"}, false, nil},
		{"good with env", config{"name": "n", "accountFromEnv": "A", "flagFromEnv": "F"}, false, nil},
		{"good with auth", config{"name": "n", "account": "a"}, true, nil},
		{"missing", config{}, true, []string{"account: is required", "name: is required"}},
		{"bad value", config{"name": "n", "account": "a", "size": "many"}, false, []string{`size "many": is not a whole`}},
		{"misspelt", config{"nam": "n", "name": "n", "account": "a"}, false,
			[]string{"nam: is not a parameter of trigger type sample; did you mean name?"}},
		{"other case", config{"Name": "n", "name": "n", "account": "a"}, false, []string{"Name: is not a parameter of trigger type sample; did you mean name?"}},
		{"far off", config{"zzzzzz": "n", "name": "n", "account": "a"}, false, []string{"zzzzzz: is not a parameter of trigger type sample"}},
		{"very long key", config{strings.Repeat("x", 1<<20): "n", "name": "n", "account": "a"}, false, []string{"is not a parameter"}},
		{"only from auth", config{"token": "secret", "name": "n", "account": "a"}, false,
			[]string{"token: cannot be given in metadata; give token in a TriggerAuthentication"}},
		{"not from env", config{"nameFromEnv": "N", "name": "n", "account": "a"}, false,
			[]string{"nameFromEnv: cannot be read from the environment; give name in metadata"}},
		{"plain value wins", config{"name": "n", "account": "a", "flag": "1", "flagFromEnv": "F"}, false,
			[]string{"warning: flagFromEnv: has no effect because flag is given too and wins"}},
		{"variable wins where it is set", config{"name": "n", "account": "a", "accountFromEnv": "F"}, false, nil},
		{"alias loses", config{"name": "n", "account": "a", "hosts": "a", "host": "b"}, false,
			[]string{"warning: host: has no effect because hosts is given too"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			findings := sample().Validate(test.metadata, test.hasAuth)
			var got []string
			for _, finding := range findings {
				text := finding.Error()
				if finding.Warning {
					text = "warning: " + text
				}
				got = append(got, text)
			}
			if len(got) != len(test.want) {
				t.Fatalf("findings %q, want %q", got, test.want)
			}
			for i := range got {
				if !strings.Contains(got[i], test.want[i]) {
					t.Errorf("finding %q, want %q", got[i], test.want[i])
				}
			}
		})
	}
}

func TestCheckSeesWhatIsKnown(t *testing.T) {
	t.Parallel()
	declared := sample()
	var known map[string]bool
	declared.Check = func(values trigger.Values) []trigger.ParamError {
		known = map[string]bool{}
		for _, param := range declared.Params {
			known[param.Name] = values.Known(param.Name)
		}
		return []trigger.ParamError{{Key: "mode", Message: "odd", Warning: true}}
	}
	findings := declared.Validate(config{"name": "n", "account": "a", "flagFromEnv": "F"}, true)
	if len(findings) != 1 || !findings[0].Warning {
		t.Errorf("findings %v", findings)
	}
	for name, want := range map[string]bool{"name": true, "size": true, "flag": false, "mode": false, "token": false} {
		if known[name] != want {
			t.Errorf("Known(%q) = %t, want %t", name, known[name], want)
		}
	}
	if _, err := declared.New(t.Context(), trigger.Config{Metadata: config{"name": "n", "account": "a"}}); err != nil {
		t.Errorf("a warning keeps a trigger from being made: %v", err)
	}
}

func TestExternalMetricName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"usertask":       "s2-sample-usertask",
		"a/b.c:d%e(f)g":  "s2-sample-a-b-c-d-e-f-g",
		"":               "s2-sample-",
		"ünï\xff\x00 \"": "s2-sample-ünï\xff\x00 \"",
	} {
		if got := sample().ExternalMetricName(2, trigger.Config{Metadata: config{"name": name}}); got != want {
			t.Errorf("metric name of %q is %q, want %q", name, got, want)
		}
	}
}

func TestParamErrorShortensValue(t *testing.T) {
	t.Parallel()
	text := trigger.ParamError{Key: "k", Value: strings.Repeat("ü", 1000), Message: "is long"}.Error()
	if len(text) > 200 || !strings.HasPrefix(text, `k "üü`) || !strings.HasSuffix(text, `…": is long`) {
		t.Errorf("error %q", text)
	}
}

func TestUndeclaredNamePanics(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	trigger.Values{}.String("name")
}

// FuzzDecode feeds one key and value into every place they may come from.
func FuzzDecode(f *testing.F) {
	f.Add("size", "5")
	f.Add("flag", "TRUE")
	f.Add("hosts", "a, b,,\x00")
	f.Add("hostFromEnv", "V")
	f.Add("mode", "s3cr3t")
	f.Add("", "\xff\xfe")
	f.Fuzz(func(t *testing.T, key, value string) {
		declared := sample()
		metadata := config{"name": "n", "account": "a", key: value}
		declared.Validate(metadata, true)
		declared.Validate(metadata, false)
		made, err := declared.New(t.Context(), trigger.Config{
			Metadata: metadata, Env: config{value: value}, Auth: config{key: value},
		})
		if (made == nil) != (err != nil) {
			t.Fatalf("New gives %v and %v", made, err)
		}
		// A value from the authentication or of a secret parameter is never shown.
		const secret = "correct horse battery staple"
		_, err = declared.New(t.Context(), trigger.Config{
			Metadata: config{"name": "n", "account": "a", "pin": secret + value}, Auth: config{key: secret + value},
		})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Fatalf("error %v", err)
		}
	})
}
