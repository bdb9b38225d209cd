package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

const clockSkew = "RequestTimeTooSkewed"

// answer is the store's refusal in its own words.
type answer struct {
	status  int
	code    string // empty where there was no body
	message string
	request string // id, for the store's support
	region  string // where the bucket is, if it says so
	deleted bool   // the object named is the mark of a deletion
}

func (a *answer) Error() string {
	var s strings.Builder
	if a.code != "" {
		s.WriteString(a.code)
		if a.message != "" && a.message != a.code {
			s.WriteString(": " + a.message)
		}
		s.WriteString(" ")
	}
	fmt.Fprintf(&s, "(HTTP %d", a.status)
	if a.request != "" {
		fmt.Fprintf(&s, ", request %s", a.request)
	}
	s.WriteString(")")
	if a.code == clockSkew {
		s.WriteString("; is the clock of this machine right?")
	}
	return s.String()
}

// fail makes an error of the package backend of what the SDK returned for a
// request with that context. It returns nil for nil.
func (b *bucket) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	if ended := httpio.Ended(ctx, op, key); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, errNoCredentials):
		return backend.Fail(op, key, backend.ErrCredentials, credentialsText(err))
	case errors.Is(err, errRefresh):
		return backend.Fail(op, key, backend.ErrTransient, credentialsText(err))
	}
	if a := answerOf(err); a != nil {
		kind := a.kind()
		if op == "open" && kind == backend.ErrNotExist {
			kind = backend.ErrNoBucket // it is all that was asked for
		}
		return backend.Fail(op, key, kind, a)
	}
	if decode, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		return backend.Fail(op, key, backend.ErrTransient, fmt.Errorf("not an answer of S3: %v", decode.Err))
	}
	sent, ok := errors.AsType[*url.Error](err)
	if !ok {
		return backend.Fail(op, key, backend.ErrInvalid, httpio.Words(err)) // refused before it was sent
	}
	return httpio.Unanswered(op, key, sent)
}

// credentialsText keeps the outermost and the innermost words of the chain of
// credential providers, which tells of each of its layers.
func credentialsText(err error) error {
	inner := err
	for {
		next := errors.Unwrap(inner)
		if joined, ok := inner.(interface{ Unwrap() []error }); ok {
			next = joined.Unwrap()[len(joined.Unwrap())-1]
		}
		if next == nil {
			break
		}
		inner = next
	}
	outer := errNoCredentials
	if errors.Is(err, errRefresh) {
		outer = errRefresh
	}
	if inner == outer {
		return outer
	}
	return fmt.Errorf("%w (%v)", outer, inner)
}

// answerOf is what the store answered; nil where it did not.
func answerOf(err error) *answer {
	e, ok := errors.AsType[*awshttp.ResponseError](err)
	if !ok || e.Response == nil || e.HTTPStatusCode() == 0 {
		return nil
	}
	if e.HTTPStatusCode()/100 == 2 {
		return nil // it went wrong behind the first line
	}
	header := e.Response.Header
	a := &answer{
		status: e.HTTPStatusCode(), request: e.ServiceRequestID(),
		region: header.Get("X-Amz-Bucket-Region"), deleted: header.Get("X-Amz-Delete-Marker") == "true",
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		a.code, a.message = api.ErrorCode(), api.ErrorMessage()
	}
	// What the SDK makes up where there was no body says less than the status.
	status := http.StatusText(a.status)
	if a.code == "UnknownError" || a.code == strings.ReplaceAll(status, " ", "") && (a.message == "" || a.message == status) {
		a.code, a.message = "", ""
	}
	return a
}

// kind is the sentinel of an answer: by its code, else by its status.
func (a *answer) kind() error {
	if a.deleted && a.status == http.StatusMethodNotAllowed {
		return backend.ErrNotExist
	}
	if kind := kindOfCode(a.code, a.message); kind != nil {
		return kind
	}
	if a.status == http.StatusBadRequest && a.code != "" {
		return backend.ErrInvalid
	}
	return httpio.Kind(a.status)
}

// kindOfCode is the sentinel of an error code of S3 or of a store like it; nil
// where the code says no more than the HTTP status.
func kindOfCode(code, message string) error {
	switch code {
	case "NoSuchKey", "NoSuchVersion", "NoSuchUpload":
		return backend.ErrNotExist
	case "NoSuchBucket", "InvalidBucketName":
		return backend.ErrNoBucket
	case "PreconditionFailed":
		return backend.ErrPrecondition
	case "AccessDenied", "AllAccessDisabled", "AccountProblem", "AccessForbidden", "UnauthorizedAccess", "KMS.DisabledException", "KMS.NotFoundException":
		return backend.ErrPermission
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "NotSignedUp",
		"InvalidSecurity", "RequestExpired", "AuthorizationHeaderMalformed", "InvalidClientTokenId", "UnrecognizedClientException",
		"XAdminUserNotFound": // versitygw, with status 404
		return backend.ErrCredentials
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling", "ThrottlingException", "ThrottledException",
		"RequestThrottled", "RequestLimitExceeded", "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded",
		"RequestThrottledException", "ProvisionedThroughputExceededException", "XMinioServerNotInitialized":
		return backend.ErrThrottled
	case "ConditionalRequestConflict", "OperationAborted", "TemporaryRedirect", "InternalError", "RequestTimeout", "IncompleteBody",
		"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", clockSkew:
		return backend.ErrTransient
	case "NotImplemented", "MethodNotAllowed":
		return backend.ErrUnsupported
	case "EntityTooLarge", "MaxMessageLengthExceeded", "MetadataTooLarge", "RequestHeaderSectionTooLarge":
		return backend.ErrTooLarge
	case "KeyTooLongError", "InvalidURI", "InvalidObjectName",
		"ObjectParentIsFile", "ExistingObjectIsDirectory", "ExistingObjectIsFile", "DirectoryObjectContainsData", // versitygw
		"XMinioInvalidObjectName", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory", "XMinioInvalidResourceName":
		return backend.ErrBadKey
	case "QuotaExceeded", "InsufficientStorage", "StorageQuotaExceeded",
		"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return backend.ErrNoSpace
	case "InvalidObjectState": // archived: it must be restored before it can be read
		return backend.ErrIO
	case "InvalidRequest":
		if strings.Contains(message, "larger than the maximum") {
			return backend.ErrTooLarge // the source of a copy
		}
	}
	return nil
}
