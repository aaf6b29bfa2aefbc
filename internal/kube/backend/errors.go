package backend

import (
	"context"
	"errors"
	"net/url"
	"os"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/offboard-dev/offboard/api/v1alpha1"
	"github.com/offboard-dev/offboard/internal/control"
)

// explain says what an error of the API server means for a user.
func (b *Backend) explain(err error) error {
	var own *control.Error
	var transport *url.Error
	switch {
	case err == nil, errors.As(err, &own), errors.Is(err, context.Canceled):
		return err
	case isUnknownResource(err):
		return control.Errorf(control.NotFound, "%ss are not known on the cluster of %s; install them with: "+
			"offboard crds | kubectl apply --server-side -f -", v1alpha1.KindScaledJob, b.Name)
	case apierrors.IsUnauthorized(err):
		return control.Errorf(control.Internal, "the cluster of %s does not accept the credentials of the kubeconfig; "+
			"they may have expired: %w", b.Name, err)
	case apierrors.IsForbidden(err):
		return control.Errorf(control.Internal, "the cluster of %s does not allow it: %w", b.Name, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return control.Errorf(control.Timeout, "the cluster of %s (%s) does not answer in time", b.Name, b.REST.Host)
	case errors.As(err, &transport):
		// What failed is in the inner error: a name, a connection, a certificate, or what gets the credentials.
		return control.Errorf(control.Unavailable, "the cluster of %s (%s) cannot be asked: %w",
			b.Name, b.REST.Host, transport.Err)
	}
	return err
}

// isUnknownResource tells whether the server does not know the kind of object, as opposed to the one object.
func isUnknownResource(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}
