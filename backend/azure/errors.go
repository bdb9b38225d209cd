package azure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/httpio"
)

// fail makes an error of package backend of what the SDK returned for a
// request with that context. It returns nil for nil.
func (c *container) fail(ctx context.Context, op, key string, err error) error {
	if err == nil {
		return nil
	}
	if ended := httpio.Ended(ctx, op, key); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, errNoCredentials):
		return backend.Fail(op, key, backend.ErrCredentials, errNoCredentials)
	case errors.Is(err, errRefresh):
		return backend.Fail(op, key, backend.ErrTransient, errRefresh)
	}
	if a, ok := errors.AsType[*azcore.ResponseError](err); ok {
		kind := kindOf(a)
		if op == "open" && kind == backend.ErrNotExist {
			kind = backend.ErrNoBucket // it is all that was asked for
		}
		return backend.Fail(op, key, kind, words(a))
	}
	if sent, ok := errors.AsType[*url.Error](err); ok {
		return httpio.Unanswered(op, key, sent)
	}
	return backend.Fail(op, key, backend.ErrTransient, fmt.Errorf("not an answer of Azure: %v", httpio.Words(err)))
}

// words are the store's own, without the whole of its answer.
func words(a *azcore.ResponseError) error {
	text := fmt.Sprintf("%s (HTTP %d)", a.ErrorCode, a.StatusCode)
	if a.ErrorCode == "" {
		text = fmt.Sprintf("HTTP %d %s", a.StatusCode, http.StatusText(a.StatusCode))
	}
	if a.ErrorCode == string(bloberror.AuthenticationFailed) {
		text += "; is it the right key, and the clock of this machine right?"
	}
	return errors.New(text)
}

// kindOf is the sentinel of an answer: by its code, else by its status.
func kindOf(a *azcore.ResponseError) error {
	switch bloberror.Code(a.ErrorCode) {
	case bloberror.BlobNotFound:
		return backend.ErrNotExist
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled:
		return backend.ErrNoBucket
	case bloberror.ConditionNotMet, bloberror.TargetConditionNotMet, bloberror.SourceConditionNotMet, bloberror.BlobAlreadyExists,
		bloberror.ResourceAlreadyExists, "UnmodifiedSinceConditionNotMet", "BlobModifiedWhileReading",
		bloberror.InvalidBlockList: // somebody has published this blob since, with which its parts are gone
		return backend.ErrPrecondition
	case bloberror.AuthenticationFailed, bloberror.InvalidAuthenticationInfo, bloberror.NoAuthenticationInformation:
		return backend.ErrCredentials
	case bloberror.AuthorizationFailure, bloberror.AuthorizationPermissionMismatch, bloberror.InsufficientAccountPermissions,
		bloberror.AccountIsDisabled, bloberror.AuthorizationProtocolMismatch, bloberror.AuthorizationResourceTypeMismatch,
		bloberror.AuthorizationServiceMismatch, bloberror.AuthorizationSourceIPMismatch, "PublicAccessNotPermitted",
		bloberror.LeaseIDMissing, bloberror.BlobImmutableDueToPolicy, bloberror.UnauthorizedBlobOverwrite:
		return backend.ErrPermission
	case bloberror.ServerBusy:
		return backend.ErrThrottled
	case bloberror.OperationTimedOut, bloberror.InternalError, bloberror.PendingCopyOperation, bloberror.MD5Mismatch, "Crc64Mismatch",
		bloberror.BlobBeingRehydrated:
		return backend.ErrTransient
	case bloberror.RequestBodyTooLarge, bloberror.MetadataTooLarge, bloberror.BlockCountExceedsLimit, bloberror.BlockListTooLong,
		"RequestHeaderFieldsTooLarge":
		return backend.ErrTooLarge
	case bloberror.InvalidResourceName, bloberror.InvalidURI:
		return backend.ErrBadKey
	case "FeatureNotSupported", "FeatureNotYetSupportedForHierarchicalNamespaceAccounts", "APINotImplemented", "NotImplemented":
		return backend.ErrUnsupported
	case bloberror.SnapshotsPresent, bloberror.BlobArchived:
		return backend.ErrIO
	}
	if a.StatusCode == http.StatusBadRequest && a.ErrorCode != "" {
		return backend.ErrInvalid
	}
	return httpio.Kind(a.StatusCode)
}

// orMissing is err, or ErrNotExist where a condition failed because there is no
// such object: Azure does not tell the two apart.
func (c *container) orMissing(ctx context.Context, op, key string, err error) error {
	if errors.Is(err, backend.ErrPrecondition) {
		if _, missing := c.head(ctx, op, key, ""); errors.Is(missing, backend.ErrNotExist) {
			return missing
		}
	}
	return err
}

// failCond is fail for a change with a condition.
func (c *container) failCond(ctx context.Context, op, key string, cond backend.Cond, err error) error {
	a, _ := errors.AsType[*azcore.ResponseError](err)
	err = c.fail(ctx, op, key, err)
	if cond.IfMatch != "" && errors.Is(err, backend.ErrNotExist) {
		return backend.Fail(op, key, backend.ErrPrecondition, words(a))
	}
	return err
}
