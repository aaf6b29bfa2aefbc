package etcd

import (
	"fmt"
	"math"
	"strconv"
)

// parseNumber reads what a key holds. Its errors, which continue a sentence that begins with the key, do not hold it.
func parseNumber(content []byte) (float64, error) {
	number, err := strconv.ParseFloat(string(content), 64)
	if err != nil || math.IsNaN(number) || math.IsInf(number, 0) {
		return 0, fmt.Errorf(`holds no number but %d other bytes; put one in decimal digits, such as "5", and nothing else`,
			len(content))
	}
	return number, nil
}
