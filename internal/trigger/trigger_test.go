package trigger_test

import (
	"context"
	"errors"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

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
			{Name: "share", Kind: trigger.Float, Default: "0.5", Positive: true, Sources: []trigger.Source{metadata}},
			{Name: "level", Kind: trigger.Float, Optional: true, Min: &zero, Sources: []trigger.Source{metadata}},
			{Name: "wait", Kind: trigger.Duration, Default: "30", Sources: []trigger.Source{metadata}},
			{Name: "headers", Kind: trigger.Map, Optional: true, Sources: []trigger.Source{metadata}},
			{Name: "query", Kind: trigger.Query, Optional: true, Sources: []trigger.Source{metadata}},
			{Name: "partitions", Kind: trigger.Numbers, Optional: true, Sources: []trigger.Source{metadata}},
			{Name: "modes", Aliases: []string{"modus"}, Kind: trigger.List, Optional: true, Unlisted: true,
				Allowed: []string{"tls", "basic", "bearer"}, Exclusive: []string{"basic", "bearer"},
				Sources: []trigger.Source{metadata}},
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
			{Name: "ours", Kind: trigger.String, Optional: true, Extension: true, Sources: []trigger.Source{metadata}},
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
		{"float", config{"name": "n", "account": "a", "share": "1.25e1"}, nil, nil,
			func(v trigger.Values) bool { return v.Float("share") == 12.5 }},
		{"float's default", config{"name": "n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.Float("share") == 0.5 && v.Float("level") == 0 }},
		{"bool", config{"name": "n", "account": "a", "flag": "T"}, nil, nil,
			func(v trigger.Values) bool { return v.Bool("flag") }},
		{"duration", config{"name": "n", "account": "a", "wait": "1m30s"}, nil, nil,
			func(v trigger.Values) bool { return v.Duration("wait") == 90*time.Second }},
		{"milliseconds", config{"name": "n", "account": "a", "wait": "1500"}, nil, nil,
			func(v trigger.Values) bool { return v.Duration("wait") == 1500*time.Millisecond }},
		{"duration's default", config{"name": "n", "account": "a"}, nil, nil,
			func(v trigger.Values) bool { return v.Duration("wait") == 30*time.Millisecond }},
		{"map", config{"name": "n", "account": "a", "headers": " X-A = 1 ,X-B=b==,X-C="}, nil, nil,
			func(v trigger.Values) bool {
				return maps.Equal(v.Map("headers"), config{"X-A": "1", "X-B": "b==", "X-C": ""})
			}},
		{"query", config{"name": "n", "account": "a", "query": "a=1&a=2&b=%26"}, nil, nil,
			func(v trigger.Values) bool {
				return slices.Equal(v.Query("query")["a"], []string{"1", "2"}) && v.Query("query").Get("b") == "&"
			}},
		{"numbers", config{"name": "n", "account": "a", "partitions": "7, 1-4,0"}, nil, nil,
			func(v trigger.Values) bool { return slices.Equal(v.Numbers("partitions"), []int32{7, 1, 2, 3, 4, 0}) }},
		{"space around numbers", config{"name": "n", "account": "a", "partitions": " 7 , 1 - 3 "}, nil, nil,
			func(v trigger.Values) bool { return slices.Equal(v.Numbers("partitions"), []int32{7, 1, 2, 3}) }},
		{"largest number", config{"name": "n", "account": "a", "partitions": "2147483647"}, nil, nil,
			func(v trigger.Values) bool { return slices.Equal(v.Numbers("partitions"), []int32{math.MaxInt32}) }},
		{"one of an exclusive set", config{"name": "n", "account": "a", "modes": "tls, basic"}, nil, nil,
			func(v trigger.Values) bool { return slices.Equal(v.List("modes"), []string{"tls", "basic"}) }},
		{"no collections", config{"name": "n", "account": "a"}, nil, nil, func(v trigger.Values) bool {
			return v.Map("headers") == nil && len(v.Query("query")) == 0 && v.Numbers("partitions") == nil
		}},
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
		{"no float", config{"name": "n", "account": "a", "share": "5,0"}, nil, nil, []string{`share "5,0": is not a number`}},
		{"not a number", config{"name": "n", "account": "a", "share": "NaN"}, nil, nil, []string{`share "NaN": is not a number`}},
		{"infinite", config{"name": "n", "account": "a", "share": "inf"}, nil, nil, []string{`share "inf": is not a number`}},
		{"float too big", config{"name": "n", "account": "a", "share": "1e999"}, nil, nil,
			[]string{`share "1e999": is out of range`}},
		{"float not above zero", config{"name": "n", "account": "a", "share": "0"}, nil, nil,
			[]string{`share "0": is too small; give a number above 0`}},
		{"float too small", config{"name": "n", "account": "a", "level": "-0.1"}, nil, nil,
			[]string{`level "-0.1": is too small; give at least 0`}},
		{"no duration", config{"name": "n", "account": "a", "wait": "soon"}, nil, nil,
			[]string{`wait "soon": is not a length of time; give one, for example "30s", or a number of milliseconds`}},
		{"negative duration", config{"name": "n", "account": "a", "wait": "-1s"}, nil, nil, []string{`wait "-1s": is negative`}},
		{"negative milliseconds", config{"name": "n", "account": "a", "wait": "-1"}, nil, nil, []string{`wait "-1": is negative`}},
		{"too long", config{"name": "n", "account": "a", "wait": "9223372036854775807"}, nil, nil, []string{"is out of range"}},
		{"no map", config{"name": "n", "account": "a", "headers": "a=1,b"}, nil, nil, []string{"that is not key=value"}},
		{"no key", config{"name": "n", "account": "a", "headers": "=1"}, nil, nil, []string{"that is not key=value"}},
		{"no query", config{"name": "n", "account": "a", "query": "a=%zz"}, nil, nil, []string{"is not the query of an URL"}},
		{"no numbers", config{"name": "n", "account": "a", "partitions": "1,,2"}, nil, nil,
			[]string{`partitions "1,,2": is not a list of numbers and ranges`}},
		{"negative number", config{"name": "n", "account": "a", "partitions": "-1"}, nil, nil, []string{"is not a list of"}},
		{"space in a number", config{"name": "n", "account": "a", "partitions": "1 2"}, nil, nil, []string{"is not a list of"}},
		{"number of 33 bits", config{"name": "n", "account": "a", "partitions": "2147483648"}, nil, nil, []string{"is not a list of"}},
		{"range backwards", config{"name": "n", "account": "a", "partitions": "4-1"}, nil, nil,
			[]string{"ends before it begins; give 1-4"}},
		{"endless range", config{"name": "n", "account": "a", "partitions": "0-9,5-2147483647"}, nil, nil,
			[]string{"holds more than 100000 numbers"}},
		{"not allowed in a list", config{"name": "n", "account": "a", "modes": "tls,none"}, nil, nil,
			[]string{"not allowed; give tls or basic or bearer"}},
		{"two of an exclusive set", config{"name": "n", "account": "a", "modes": "basic,tls,bearer"}, nil, nil,
			[]string{"holds more than one of basic, bearer"}},
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
		{"of old manifests", config{"metricName": "n", "name": "n", "account": "a"}, false,
			[]string{"warning: metricName: has no effect, as in KEDA since 2.12"}},
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

func TestOtherKeys(t *testing.T) {
	t.Parallel()
	declared := sample()
	declared.OtherKeys = true
	metadata := config{"name": "n", "account": "a", "nmae": "x", "tokenFromEnv": "y", "size": "0"}
	if findings := declared.Validate(metadata, false); len(findings) != 0 {
		t.Errorf("findings %v, want none for keys that the source may know", findings)
	}
	metadata["size"] = "many"
	if findings := declared.Validate(metadata, false); len(findings) != 1 || findings[0].Key != "size" {
		t.Errorf("findings %v, want one about size", findings)
	}
}

func TestSchemaOf(t *testing.T) {
	t.Parallel()
	other := trigger.Type{Name: "other", Params: []trigger.Param{{
		Name: "numbers", Aliases: []string{"number"}, Kind: trigger.Numbers, Optional: true, Allowed: []string{"1"},
		Exclusive: []string{"2"}, Sources: []trigger.Source{trigger.FromMetadata, trigger.FromAuth},
	}}}
	schema := trigger.SchemaOf([]trigger.Type{sample(), other})
	if len(schema.Scalers) != 2 || schema.Scalers[0].Type != "other" || schema.Scalers[1].Type != "sample" {
		t.Fatalf("schema %+v, want the types other and sample in this order", schema)
	}
	want := trigger.SchemaParam{
		Name: "numbers", Type: "string", Optional: true, AllowedValue: []string{"1"}, ExclusiveSet: []string{"2"},
		RangeSeparator: "-", MetadataReadable: true, AuthReadable: true,
	}
	alias := want
	alias.Name = "number"
	if got := schema.Scalers[0].Parameters; !reflect.DeepEqual(got, []trigger.SchemaParam{want, alias}) {
		t.Errorf("schema %+v, want %+v and the same under the name number", got, want)
	}
	for _, param := range schema.Scalers[1].Parameters {
		if param.Name == "modes" || param.Name == "modus" || param.Name == "ours" {
			t.Errorf("the schema holds %q, which KEDA's leaves out", param.Name)
		}
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
	f.Add("wait", "1h")
	f.Add("headers", "a=b,c==")
	f.Add("query", "a=%20&b")
	f.Add("partitions", "1-4,7")
	f.Add("modes", "basic,bearer")
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

func TestUnknownType(t *testing.T) {
	t.Parallel()
	types := []trigger.Type{{Name: "redis"}, {Name: "cron"}}
	for name, want := range map[string]string{
		"kafka":  "KEDA has trigger type kafka, but Offboard does not yet: it has cron, redis",
		"reddis": `unknown trigger type "reddis": want one of cron, redis; did you mean "redis"?`,
		"none":   `unknown trigger type "none": want one of cron, redis`,
		"":       `unknown trigger type "": want one of cron, redis`,
	} {
		if got := trigger.UnknownType(types, name).Error(); got != want {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	}
}
