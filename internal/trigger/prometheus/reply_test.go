package prometheus

import (
	"errors"
	"math"
	"testing"
)

func TestRead(t *testing.T) {
	t.Parallel()
	vector := func(result string) string {
		return `{"status":"success","data":{"resultType":"vector","result":` + result + `}}`
	}
	for text, want := range map[string]string{
		vector(`[{"metric":{"a":"b"},"value":[1.5,"2.5"]}]`): "2.5",
		vector(`[{"value":[1,"1e400"]}]`):                    "null",
		vector(`[{"value":[1,"NaN"]}]`):                      "null",
		vector(`[{"value":[1,null]}]`):                       "null",
		vector(`[{"value":[]}]`):                             "null",
		vector(`[{}]`):                                       "null",
		vector(`[]`):                                         "null",
		vector(`null`):                                       "null",
		vector(`[{"value":[1]}]`):                            "error",
		vector(`[{"value":[1,2]}]`):                          "error",
		vector(`[{"value":[1,"many"]}]`):                     "error",
		vector(`{"value":[1,"2"]}`):                          "error",
		vector(`[{},{}]`):                                    "error",
		`{"status":"success","data":{"resultType":"scalar","result":[1,"2.5"]}}`: "2.5",
		`{"status":"success","data":{"resultType":"scalar","result":{}}}`:        "error",
		`{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`:   "error",
		`{"status":"success","data":{}}`:                                         "error",
		`{"status":"error","errorType":"x","error":"y"}`:                         "error",
		`{}`: "error", `[]`: "error", ``: "error", `<html>`: "error",
	} {
		number, err := read([]byte(text))
		got := "error"
		switch {
		case errors.Is(err, errNull):
			got = "null"
		case err == nil && number == 2.5:
			got = "2.5"
		}
		if got != want {
			t.Errorf("%s: got %v, %v; want %s", text, number, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"status":"success","data":{"resultType":"vector","result":[{"value":[1,"2"]}]}}`))
	f.Add([]byte(`{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}`))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if number, err := read(reply); math.IsNaN(number) || math.IsInf(number, 0) || (err != nil && number != 0) {
			t.Fatalf("%v, %v", number, err)
		}
	})
}
