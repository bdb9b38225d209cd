package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/keifs/keifs/backend"
)

// anyRegion answers for every bucket, if only by naming the right region.
const anyRegion = "us-east-1"

// connect makes the client, and asks the bucket for one key, which shows
// whether all is well.
func (b *bucket) connect(ctx context.Context, opts *Options) error {
	cfg, err := opts.load(ctx)
	if err != nil {
		return backend.Fail("open", b.name, backend.ErrCredentials, err)
	}
	if !opts.Anonymous {
		known := &credentials{next: cfg.Credentials}
		if _, err := known.Retrieve(ctx); err != nil {
			return b.fail(ctx, "open", b.name, err)
		}
		cfg.Credentials = known
	}
	b.client = b.newClient(cfg, opts, "")
	if b.client.Options().Region == "" {
		region, err := b.findRegion(ctx, cfg, opts)
		if err != nil {
			return b.fail(ctx, "open", b.name, err)
		}
		b.client = b.newClient(cfg, opts, region)
	}
	for attempt := 1; ; attempt++ {
		ctx, w := b.Watch(ctx)
		out, err := b.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
			Bucket: &b.name, Prefix: &b.prefix, MaxKeys: aws.Int32(1), EncodingType: types.EncodingTypeUrl,
		})
		err = b.fail(ctx, "open", b.name, err)
		w.Stop()
		if err == nil {
			b.encodes = out.EncodingType == types.EncodingTypeUrl
			return nil
		}
		if attempt == 3 {
			return err
		}
		refusal, ok := errors.AsType[*answer](err)
		if !ok {
			return err
		}
		switch region := refusal.region; {
		case region != "" && region != b.client.Options().Region:
			b.log.Info("the bucket is in another region", "bucket", b.name, "region", region)
			b.client = b.newClient(cfg, opts, region)
		case refusal.code == clockSkew: // by now the client knows the store's time
		default:
			return err
		}
	}
}

func (o *Options) load(ctx context.Context) (aws.Config, error) {
	var load []func(*config.LoadOptions) error
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.Anonymous {
		load = append(load, config.WithCredentialsProvider(aws.AnonymousCredentials{}))
	}
	return config.LoadDefaultConfig(ctx, load...)
}

func (b *bucket) newClient(cfg aws.Config, opts *Options, region string) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		if opts.Endpoint != "" {
			o.BaseEndpoint = &opts.Endpoint
		}
		switch {
		case region != "":
			o.Region = region
		case opts.Region != "":
			o.Region = opts.Region
		case o.Region == "" && o.BaseEndpoint != nil:
			o.Region = anyRegion
		}
		o.UsePathStyle = o.BaseEndpoint != nil
		if opts.PathStyle != nil {
			o.UsePathStyle = *opts.PathStyle
		}
		o.HTTPClient = &httpClient{b.HTTPClient()}
		o.Retryer = aws.NopRetryer{}
		o.ContinueHeaderThresholdBytes = -1
		// Many stores refuse a body with a checksum behind it.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.Logger = logging.Nop{}
		if opts.RequesterPays {
			o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue("X-Amz-Request-Payer", "requester"))
		}
	})
}

type httpClient struct{ *http.Client }

// Do sends a request. The SDK leaves its version of HTTP at 0.0, for which
// net/http does not wait for the server's "continue" before it sends a body.
func (c *httpClient) Do(req *http.Request) (*http.Response, error) {
	req.Proto, req.ProtoMajor, req.ProtoMinor = "HTTP/1.1", 1, 1
	return c.Client.Do(req)
}

// findRegion asks Amazon where the bucket is. It needs no credentials.
func (b *bucket) findRegion(ctx context.Context, cfg aws.Config, opts *Options) (string, error) {
	ctx, w := b.Watch(ctx)
	defer w.Stop()
	cfg.Credentials = aws.AnonymousCredentials{}
	out, err := b.newClient(cfg, opts, anyRegion).HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.name})
	if err == nil {
		return aws.ToString(out.BucketRegion), nil
	}
	// Also a refusal tells.
	if region := regionOf(err); region != "" {
		return region, nil
	}
	return "", err
}

func regionOf(err error) string {
	if e, ok := errors.AsType[*awshttp.ResponseError](err); ok && e.Response != nil {
		return e.Response.Header.Get("X-Amz-Bucket-Region")
	}
	return ""
}

// credentials classifies the failures of the AWS credential chain.
type credentials struct {
	next aws.CredentialsProvider // which caches
	had  atomic.Bool             // there were credentials once
}

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if c.next == nil {
		return aws.Credentials{}, errNoCredentials
	}
	cred, err := c.next.Retrieve(ctx)
	if err == nil {
		c.had.Store(true)
		return cred, nil
	}
	// Who had credentials, and cannot refresh them for want of an answer, may
	// have them again: data that waits for its upload must not be given up.
	if _, refused := errors.AsType[smithy.APIError](err); c.had.Load() && !refused {
		return cred, fmt.Errorf("%w: %w", errRefresh, err)
	}
	return cred, fmt.Errorf("%w: %w", errNoCredentials, err)
}

var (
	errNoCredentials = errors.New("no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or ask for anonymous access")
	errRefresh       = errors.New("the credentials could not be renewed")
)

// customerKey is a key of which the store keeps only a hash; all nil without.
type customerKey struct{ algorithm, key, md5 *string }

func newCustomerKey(key []byte) customerKey {
	if len(key) == 0 {
		return customerKey{}
	}
	sum := md5.Sum(key)
	return customerKey{
		algorithm: aws.String("AES256"),
		key:       aws.String(base64.StdEncoding.EncodeToString(key)),
		md5:       aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}
}
