package prometheus

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// errNull means that the query has a result, but no number: nothing, or one that is not finite.
var errNull = errors.New(`gives no number for the query; correct it, or give ignoreNullValues "true" to count it as 0`)

// sample is a point in time and a number as text.
type sample []json.RawMessage

// read returns the number that a reply of /api/v1/query holds; errNull when there is none. The form is that of
// https://prometheus.io/docs/prometheus/latest/querying/api/.
func read(reply []byte) (float64, error) {
	var parsed struct {
		Status string `json:"status"`
		Data   struct {
			Type   string          `json:"resultType"`
			Result json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply, &parsed); err != nil || parsed.Status != "success" {
		return 0, errors.New("does not answer as Prometheus does; give the URL before /api/v1 as serverAddress")
	}
	switch parsed.Data.Type {
	case "vector":
		var series []struct {
			Value sample `json:"value"`
		}
		if err := json.Unmarshal(parsed.Data.Result, &series); err != nil {
			return 0, errors.New("gives a result that is not a list of series")
		}
		switch len(series) {
		case 0:
			return 0, errNull
		case 1:
			return series[0].Value.number()
		}
		return 0, fmt.Errorf("gives %d series for the query; make it one, for example with sum(…)", len(series))
	case "scalar":
		var value sample
		if err := json.Unmarshal(parsed.Data.Result, &value); err != nil {
			return 0, errors.New("gives a scalar that is not a number")
		}
		return value.number()
	case "matrix":
		return 0, errors.New("gives a range of values for the query; make it one, for example with max_over_time(…)")
	default:
		return 0, errors.New("gives a result that is no number; the query must have a scalar or a single series")
	}
}

// number returns the sample's number.
func (s sample) number() (float64, error) {
	if len(s) == 0 {
		return 0, errNull
	}
	if len(s) != 2 {
		return 0, errors.New("gives a value without a time or a number")
	}
	if string(s[1]) == "null" {
		return 0, errNull
	}
	var text string
	if err := json.Unmarshal(s[1], &text); err != nil {
		return 0, errors.New("gives a value that is not a number in quotes")
	}
	number, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, errors.New("gives a value that is not a number")
	case math.IsNaN(number), math.IsInf(number, 0):
		return 0, errNull
	}
	return number, nil
}
