package auth

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/offboard-dev/offboard/api/v1alpha1"
)

var clusterRef = &v1alpha1.AuthenticationRef{Name: "auth", Kind: v1alpha1.KindClusterTriggerAuthentication}

// jwt returns a token about the subject, with a signature of nobody.
func jwt(subject string) string {
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	return encode(`{"alg":"none"}`) + "." + encode(`{"sub":"`+subject+`"}`) + "." + encode("nobody")
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileStandsInPlaceOfAllOthers(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write(t, filepath.Join(folder, "redis", "..data", "auth.json"), `{"password": "`+password+`", "empty": ""}`)
	// As kubelet mounts a Secret.
	if err := os.Symlink(filepath.Join("..data", "auth.json"), filepath.Join(folder, "redis", "auth.json")); err != nil {
		t.Fatal(err)
	}
	var resolver Resolver
	get := func() Parameters {
		t.Helper()
		params, err := resolver.Resolve(t.Context(), Request{
			Ref: clusterRef, Namespaces: namespaces, Env: environment, Files: folder,
			Objects: newStore(`{filePath: redis/auth.json, env: [{parameter: x, name: PW}]}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		return params
	}
	began := time.Now()
	params := get()
	if want := map[string]string{"password": password, "empty": ""}; !maps.Equal(params.Values, want) {
		t.Errorf("got %q; want %q", params.Values, want)
	}
	if params.Until.Before(began.Add(rereadEvery)) || params.Until.After(time.Now().Add(rereadEvery)) {
		t.Errorf("to be read again at %v; want in %v", params.Until, rereadEvery)
	}
	write(t, filepath.Join(folder, "redis", "..data", "auth.json"), `{"password": "another"}`)
	if got := get().Values; !maps.Equal(got, map[string]string{"password": "another"}) {
		t.Errorf("after a change got %q; want what is there now", got)
	}
}

func TestErrorsOfFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	outside := write(t, filepath.Join(t.TempDir(), "outside.json"), `{"p": "`+password+`"}`)
	if err := os.Symlink(outside, filepath.Join(folder, "link.json")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "text.json"), password)
	write(t, filepath.Join(folder, "null.json"), "null")
	write(t, filepath.Join(folder, "list.json"), `["`+password+`"]`)
	write(t, filepath.Join(folder, "number.json"), `{"port": 6379, "password": "`+password+`"}`)
	write(t, filepath.Join(folder, "cut.json"), `{"password": "`+password)
	write(t, filepath.Join(folder, "large.json"), `{"p": "`+strings.Repeat("a", maxFile)+`"}`)
	for name, test := range map[string]struct {
		path, files string
		ref         *v1alpha1.AuthenticationRef
		want        []string
	}{
		"none":           {"none.json", folder, clusterRef, []string{filepath.Join(folder, "none.json") + " does not exist"}},
		"no folder":      {"a.json", "", clusterRef, []string{"filePath: ", "--filepath-auth-root-path"}},
		"folder missing": {"a.json", folder + "/no", clusterRef, []string{"does not exist"}},
		"no cluster":     {"a.json", folder, &v1alpha1.AuthenticationRef{Name: "auth"}, []string{"only a ClusterTriggerAuthentication"}},
		"absolute":       {outside, folder, clusterRef, []string{"filePath: ", "relative"}},
		"out of it":      {"../outside.json", folder, clusterRef, []string{"filePath: ", "does not lead out"}},
		"a link":         {"link.json", folder, clusterRef, []string{"open link.json in the folder " + folder, "escapes"}},
		"a folder":       {".", folder, clusterRef, []string{"no regular file"}},
		"no JSON":        {"text.json", folder, clusterRef, []string{"text.json: no JSON after 1 bytes"}},
		"null":           {"null.json", folder, clusterRef, []string{"no JSON object"}},
		"a list":         {"list.json", folder, clusterRef, []string{"no JSON object"}},
		"a number":       {"number.json", folder, clusterRef, []string{`the value of "port" is no string`}},
		"cut":            {"cut.json", folder, clusterRef, []string{"no JSON"}},
		"too large":      {"large.json", folder, clusterRef, []string{"larger than 1024 KiB"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := new(Resolver).Resolve(t.Context(), Request{
				Ref: test.ref, Namespaces: namespaces, Env: environment, Files: test.files,
				Objects: newStore(`filePath: ` + test.path),
			})
			if err == nil {
				t.Fatal("there is no error")
			}
			for _, want := range append(test.want, `TriggerAuthentication "`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), password) {
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
	if _, err := readFile(folder, "none.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v; want an error that is fs.ErrNotExist", err)
	}
}

func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{`{"password": "x"}`, `{}`, `null`, `{"a": 1}`, `{"a": {"b": "c"}}`, `{"a": "`, "\xff", ``} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, err := parseFile(text)
		if (err == nil) != (values != nil) {
			t.Errorf("got %q and %v; want one of them", values, err)
		}
	})
}

func FuzzSubject(f *testing.F) {
	for _, seed := range []string{jwt("system:serviceaccount:a:b"), "a.b.c", "..", "", "e30.e30.e30", "a.eyJzdWIiOjF9.c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if got := subject(token); got != "" && strings.Count(token, ".") != 2 {
			t.Errorf("%q has the subject %q; want none, it is no token", token, got)
		}
	})
}

func TestATokenIsAskedForOnceAndInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		objects := newStore(`boundServiceAccountToken: [{parameter: t, serviceAccountName: worker}]`)
		var resolver Resolver
		get := func(doubted bool, want string) time.Time {
			t.Helper()
			params, err := resolver.Resolve(t.Context(), Request{
				Ref: &v1alpha1.AuthenticationRef{Name: "auth"}, Objects: objects, Namespaces: namespaces, Env: environment,
				Doubted: doubted,
			})
			if got := params.Values["t"]; err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			return params.Until
		}
		until := get(false, "token 1 of shop/worker")
		if want := time.Now().Add(tokenLife * 2 / 3); !until.Equal(want) {
			t.Errorf("to be resolved again at %v; want %v", until, want)
		}
		time.Sleep(30 * time.Minute)
		get(false, "token 1 of shop/worker")
		get(true, "token 2 of shop/worker") // it does not work any more
		get(true, "token 2 of shop/worker") // and will not be asked for all the time
		time.Sleep(41 * time.Minute)
		get(false, "token 3 of shop/worker")
	})
}

func TestErrorsOfTokens(t *testing.T) {
	t.Parallel()
	ref := &v1alpha1.AuthenticationRef{Name: "auth"}
	objects := newStore(`boundServiceAccountToken: [{parameter: p, serviceAccountName: none}]`)
	_, err := resolve(t, objects, ref)
	want := `boundServiceAccountToken[0] (parameter "p"): ServiceAccount "shop/none" does not exist`
	if err == nil || !strings.Contains(err.Error(), want) || !apierrors.IsNotFound(err) {
		t.Errorf("got %v; want %q", err, want)
	}
	objects = newStore(`boundServiceAccountToken: [{parameter: p, serviceAccountName: worker}]`)
	objects.brokenTokens = apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "worker",
		errors.New("no right"))
	_, err = resolve(t, objects, ref)
	want = `a token of ServiceAccount "shop/worker" must not be asked for: permit it with a Role`
	if err == nil || !strings.Contains(err.Error(), want) || !apierrors.IsForbidden(err) {
		t.Errorf("got %v; want %q", err, want)
	}
	for spec, want := range map[string]string{
		`boundServiceAccountToken: [{serviceAccountName: worker}]`: "boundServiceAccountToken[0].parameter: Required",
		`boundServiceAccountToken: [{parameter: p}]`:               "boundServiceAccountToken[0].serviceAccountName: Required",
		`boundServiceAccountToken: [{parameter: p, serviceAccountName: A}]`: "boundServiceAccountToken[0]." +
			"serviceAccountName: Invalid",
	} {
		if _, err := resolve(t, newStore(spec), ref); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v; want %q", spec, err, want)
		}
	}
}

func TestOnlyTokensOfServiceAccountsAreReadFromFiles(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	token := jwt("system:serviceaccount:shop:worker")
	if got, err := serviceAccountFile(write(t, filepath.Join(folder, "token"), token+"\n")); err != nil || got != token {
		t.Errorf("got %q, %v; want the token", got, err)
	}
	for name, text := range map[string]string{
		"secret": password, "other": jwt("alice"), "no JSON": "a." + base64.RawURLEncoding.EncodeToString([]byte("x")) + ".c",
		"empty": "", "no base64": "a.!.c",
	} {
		path := write(t, filepath.Join(folder, name), text)
		want := path + " does not hold a token of a service account"
		if _, err := serviceAccountFile(path); err == nil || err.Error() != want {
			t.Errorf("%s: got %v; want %s", name, err, want)
		}
	}
	if _, err := serviceAccountFile(filepath.Join(folder, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v; want an error that is fs.ErrNotExist", err)
	}
	if _, err := serviceAccountFile(folder); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a folder: got %v; want an error", err)
	}
}
