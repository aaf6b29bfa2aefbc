package mysql

import (
	"net"
	"strconv"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/offboard-dev/offboard/internal/trigger"
)

// settings is all that makes one server's connections differ from another's: a data source name. Triggers with equal
// settings share connections.
type settings string

// networkTimeout bounds each step on a connection that no measurement bounds, for example while one is made for whoever
// asks next.
const networkTimeout = trigger.MeasureTimeout + time.Second

// newSettings decides where and how to connect, and refuses what is no connection string.
func newSettings(values trigger.Values) (settings, *driver.Config, error) {
	var config *driver.Config
	if text := values.String(paramConnection); text != "" {
		parsed, err := driver.ParseDSN(text)
		if err != nil {
			return "", nil, trigger.ParamError{Key: values.Key(paramConnection), Message: connectionProblem(text, err)}
		}
		config = parsed
	} else {
		config = driver.NewConfig()
		config.Net = "tcp"
		config.Addr = net.JoinHostPort(strings.Trim(values.String(paramHost), "[]"), values.String(paramPort))
		config.User, config.Passwd = values.String(paramUsername), values.String(paramPassword)
		config.DBName = values.String(paramDBName)
	}
	chosen := settings(config.FormatDSN())
	config.Logger = &driver.NopLogger{} // what fails is an error of the measurement
	config.Timeout = bounded(config.Timeout)
	config.ReadTimeout = bounded(config.ReadTimeout)
	config.WriteTimeout = bounded(config.WriteTimeout)
	return chosen, config, nil
}

func bounded(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return networkTimeout
	}
	return min(timeout, networkTimeout)
}

// connectionProblem says what is wrong with a connection string, and shows nothing of it.
func connectionProblem(text string, err error) string {
	const form = "give USER:PASSWORD@tcp(HOST:PORT)/DATABASE"
	switch problem := err.Error(); {
	case isURL(text):
		return "is a URL; " + form
	case strings.Contains(problem, "missing the slash"):
		return "has no slash before the name of the database; " + form
	case strings.Contains(problem, "unknown config name"), strings.Contains(problem, "invalid value / unknown"):
		return "names a TLS configuration that there is not; give tls=true, tls=skip-verify, tls=preferred or tls=false"
	default:
		return "is no connection string of MySQL; " + form
	}
}

func validPort(port string) bool {
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number > 0
}
