package admission

import (
	"fmt"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	webhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/offboard-dev/offboard/internal/manifest"
)

// maxListed is how many errors, and how many warnings, one answer lists. It bounds what an object that was built to be
// wrong everywhere makes the API server carry.
const maxListed = 100

// answer refuses the object if any problem is an error.
func answer(request *admissionv1.AdmissionRequest, problems manifest.Problems) webhook.Response {
	response := webhook.Allowed("")
	if errs := problems.Of(manifest.Error); len(errs) > 0 {
		response = refusal(request, errs)
	}
	warnings := problems.Of(manifest.Warning)
	for _, warning := range warnings[:min(len(warnings), maxListed)] {
		response.Warnings = append(response.Warnings, warning.Text())
	}
	return response
}

func refusal(request *admissionv1.AdmissionRequest, errs manifest.Problems) webhook.Response {
	unlisted := max(0, len(errs)-maxListed)
	lines := make([]string, 0, maxListed+1)
	causes := make([]metav1.StatusCause, 0, maxListed+1)
	for _, problem := range errs[:len(errs)-unlisted] {
		lines = append(lines, problem.Text())
		field := problem.Field
		if field == "" {
			field = "object"
		}
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: field,
			Message: oneLine(problem)})
	}
	if unlisted > 0 {
		more := fmt.Sprintf("%d more problems in this object are not listed", unlisted)
		lines = append(lines, more)
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: "object", Message: more})
	}
	message := lines[0]
	if len(lines) > 1 {
		message = fmt.Sprintf("%d errors:\n%s", len(errs), strings.Join(lines, "\n"))
	}
	return webhook.Response{AdmissionResponse: admissionv1.AdmissionResponse{
		Allowed: false,
		Result: &metav1.Status{
			Status:  metav1.StatusFailure,
			Code:    http.StatusUnprocessableEntity,
			Reason:  metav1.StatusReasonInvalid,
			Message: message,
			Details: &metav1.StatusDetails{Name: request.Name, Group: request.Kind.Group, Kind: request.Kind.Kind,
				Causes: causes},
		},
	}}
}

// oneLine returns a problem's message by itself, in one line as Text gives it.
func oneLine(problem manifest.Problem) string {
	problem.Field = ""
	return problem.Text()
}
