package server

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// Object is what the server says of one object.
type Object struct {
	Size        int64
	ETag        string // without quotes
	VersionID   string
	ModTime     time.Time
	ContentType string
	Metadata    map[string]string // names in lower case
}

// S3 is an S3 server, and reaches its objects past keifs.
type S3 struct {
	*Process
	Endpoint  string // http://127.0.0.1:PORT
	Region    string
	AccessKey string
	SecretKey string

	client *s3.Client
}

// The keys of every S3 server here, for its command and its clients.
const (
	S3Region    = "us-east-1"
	S3AccessKey = "test-access-key"
	S3SecretKey = "test-secret-key"
)

// NewS3 is an S3 server that runs.
func NewS3(p *Process) *S3 {
	s := &S3{Process: p, Endpoint: "http://" + p.Addr, Region: S3Region, AccessKey: S3AccessKey, SecretKey: S3SecretKey}
	s.client = s3.New(s3.Options{
		BaseEndpoint: aws.String(s.Endpoint),
		Region:       s.Region,
		Credentials:  credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
		UsePathStyle: true,
	})
	return s
}

// Client returns a plain S3 client, for what the methods here do not have.
func (s *S3) Client() *s3.Client { return s.client }

// MakeBucket makes an empty bucket of a new name. It ends with the server.
func (s *S3) MakeBucket(t testing.TB) string {
	t.Helper()
	name := "test-" + strings.ToLower(rand.Text()[:12])
	if _, err := s.client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return name
}

// EnableVersioning makes the bucket keep versions.
func (s *S3) EnableVersioning(t testing.TB, bucket string) {
	t.Helper()
	_, err := s.client.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
		Bucket:                  &bucket,
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Put stores an object as another tool would, and returns its ETag.
func (s *S3) Put(t testing.TB, bucket, key string, data []byte) string {
	t.Helper()
	return s.PutMetadata(t, bucket, key, data, nil)
}

// PutMetadata is Put with user metadata.
func (s *S3) PutMetadata(t testing.TB, bucket, key string, data []byte, metadata map[string]string) string {
	t.Helper()
	out, err := s.client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader(data), Metadata: metadata,
	})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return unquote(out.ETag)
}

// Get returns the content of an object that must be there.
func (s *S3) Get(t testing.TB, bucket, key string) []byte {
	t.Helper()
	data, found := s.TryGet(t, bucket, key)
	if !found {
		t.Fatalf("get %s: not there", key)
	}
	return data
}

// TryGet returns the content of an object, and whether it is there.
func (s *S3) TryGet(t testing.TB, bucket, key string) ([]byte, bool) {
	t.Helper()
	out, err := s.client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if missing(err) {
		return nil, false
	}
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return data, true
}

// Head returns what the server says of an object that must be there.
func (s *S3) Head(t testing.TB, bucket, key string) Object {
	t.Helper()
	o, found := s.TryHead(t, bucket, key)
	if !found {
		t.Fatalf("head %s: not there", key)
	}
	return o
}

// TryHead returns what the server says of an object, and whether it is there.
func (s *S3) TryHead(t testing.TB, bucket, key string) (Object, bool) {
	t.Helper()
	out, err := s.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if missing(err) {
		return Object{}, false
	}
	if err != nil {
		t.Fatalf("head %s: %v", key, err)
	}
	return Object{
		Size: aws.ToInt64(out.ContentLength), ETag: unquote(out.ETag), VersionID: aws.ToString(out.VersionId),
		ModTime: aws.ToTime(out.LastModified), ContentType: aws.ToString(out.ContentType), Metadata: out.Metadata,
	}, true
}

// List returns the keys that begin with prefix, in order.
func (s *S3) List(t testing.TB, bucket, prefix string) []string {
	t.Helper()
	var keys []string
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("list %s: %v", prefix, err)
		}
		for _, o := range page.Contents {
			keys = append(keys, aws.ToString(o.Key))
		}
	}
	return keys
}

// Delete deletes objects.
func (s *S3) Delete(t testing.TB, bucket string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := s.client.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &bucket, Key: &key}); err != nil {
			t.Fatalf("delete %s: %v", key, err)
		}
	}
}

func missing(err error) bool {
	var e *awshttp.ResponseError
	return errors.As(err, &e) && e.HTTPStatusCode() == http.StatusNotFound
}

func unquote(etag *string) string {
	s := aws.ToString(etag)
	if len(s) >= 2 && s[0] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
