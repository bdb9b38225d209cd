package bench

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Client sends plain S3 requests, as cheaply as this machine can: what it
// takes for a piece of work is the limit that a mount is measured against.
type Client struct {
	endpoint, bucket string
	keys             aws.Credentials
	http             *http.Client
	signer           *v4.Signer
}

// NewClient makes a client of one bucket.
func NewClient(endpoint, bucket, accessKey, secretKey string) *Client {
	return &Client{
		endpoint: endpoint, bucket: bucket,
		keys:   aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey},
		signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
		http: &http.Client{Transport: &http.Transport{
			MaxIdleConns: 512, MaxIdleConnsPerHost: 512, DisableCompression: true,
			ReadBufferSize: 64 << 10, WriteBufferSize: 256 << 10,
		}},
	}
}

// do sends a request and hands the answer to fn, which may be nil. An answer
// of 300 and above is an error.
func (c *Client) do(method, key string, query url.Values, head map[string]string, body []byte, fn func(*http.Response) error) error {
	at := url.URL{Path: "/" + c.bucket, RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20")}
	if key != "" {
		at.Path += "/" + key
	}
	req, err := http.NewRequest(method, c.endpoint+at.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	const unsigned = "UNSIGNED-PAYLOAD"
	req.Header.Set("X-Amz-Content-Sha256", unsigned)
	for name, value := range head {
		req.Header.Set(name, value)
	}
	if err := c.signer.SignHTTP(context.Background(), c.keys, req, unsigned, "s3", "us-east-1", time.Now()); err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("%s %s: %s %s", method, key, resp.Status, text)
	}
	if fn != nil {
		return fn(resp)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// put stores an object.
func (c *Client) put(key string, body []byte) error {
	return c.do(http.MethodPut, key, nil, nil, body, nil)
}

// putFile stores an object with the attributes of a file of root, as mounts
// keep them.
func (c *Client) putFile(key string, body []byte, modified time.Time, perm uint32) error {
	const regular = 0o100000
	return c.do(http.MethodPut, key, nil, map[string]string{
		"X-Amz-Meta-Mode": fmt.Sprint(regular | perm), "X-Amz-Meta-Mtime": fmt.Sprint(modified.Unix()),
		"X-Amz-Meta-Uid": "0", "X-Amz-Meta-Gid": "0",
	}, body, nil)
}

// get reads a range, and throws it away by way of buf.
func (c *Client) get(key string, off, n int64, buf []byte) error {
	head := map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", off, off+n-1)}
	return c.do(http.MethodGet, key, nil, head, nil, func(resp *http.Response) error {
		got, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
		if err == nil && got != n {
			err = fmt.Errorf("get %s: %d bytes of %d", key, got, n)
		}
		return err
	})
}

// copy copies within the bucket.
func (c *Client) copy(from, to string) error {
	source := (&url.URL{Path: c.bucket + "/" + from}).EscapedPath()
	return c.do(http.MethodPut, to, nil, map[string]string{"X-Amz-Copy-Source": source}, nil, nil)
}

// object is an entry of a listing.
type object struct {
	Key  string
	Size int64
}

type listing struct {
	Contents              []object
	CommonPrefixes        []struct{ Prefix string }
	IsTruncated           bool
	NextContinuationToken string
}

func (c *Client) page(prefix, delimiter, token string) (l listing, err error) {
	query := url.Values{"list-type": {"2"}, "prefix": {prefix}}
	if delimiter != "" {
		query.Set("delimiter", delimiter)
	}
	if token != "" {
		query.Set("continuation-token", token)
	}
	err = c.do(http.MethodGet, "", query, nil, nil, func(resp *http.Response) error {
		return xml.NewDecoder(resp.Body).Decode(&l)
	})
	return l, err
}

// list lists all keys that begin with prefix, one page after the other.
func (c *Client) list(prefix string) (all []object, err error) {
	for token := ""; ; {
		l, err := c.page(prefix, "", token)
		if err != nil {
			return nil, err
		}
		all = append(all, l.Contents...)
		if token = l.NextContinuationToken; !l.IsTruncated {
			return all, nil
		}
	}
}

const maxBatch = 1000 // keys of one batch delete

// remove deletes objects, in batches.
func (c *Client) remove(objects []object) error {
	for len(objects) > 0 {
		batch := objects[:min(len(objects), maxBatch)]
		objects = objects[len(batch):]
		var body bytes.Buffer
		body.WriteString("<Delete><Quiet>true</Quiet>")
		for _, o := range batch {
			body.WriteString("<Object><Key>")
			if err := xml.EscapeText(&body, []byte(o.Key)); err != nil {
				return err
			}
			body.WriteString("</Key></Object>")
		}
		body.WriteString("</Delete>")
		sum := md5.Sum(body.Bytes()) // which S3 demands here
		head := map[string]string{"Content-Md5": base64.StdEncoding.EncodeToString(sum[:])}
		if err := c.do(http.MethodPost, "", url.Values{"delete": {""}}, head, body.Bytes(), nil); err != nil {
			return err
		}
	}
	return nil
}

// part is one part of a multipart upload: bytes, or a range of an object.
type part struct {
	body     []byte
	copyFrom string
	off, n   int64
}

// upload makes an object of parts, of which parallel are under way at once.
func (c *Client) upload(key string, parts []part, parallel int) error {
	var begun struct{ UploadId string }
	err := c.do(http.MethodPost, key, url.Values{"uploads": {""}}, nil, nil, func(resp *http.Response) error {
		return xml.NewDecoder(resp.Body).Decode(&begun)
	})
	if err != nil {
		return err
	}
	etags := make([]string, len(parts))
	err = each(len(parts), parallel, func(i int) error {
		p := parts[i]
		query := url.Values{"partNumber": {fmt.Sprint(i + 1)}, "uploadId": {begun.UploadId}}
		if p.copyFrom == "" {
			return c.do(http.MethodPut, key, query, nil, p.body, func(resp *http.Response) error {
				etags[i] = resp.Header.Get("Etag")
				return nil
			})
		}
		head := map[string]string{
			"X-Amz-Copy-Source":       (&url.URL{Path: c.bucket + "/" + p.copyFrom}).EscapedPath(),
			"X-Amz-Copy-Source-Range": fmt.Sprintf("bytes=%d-%d", p.off, p.off+p.n-1),
		}
		return c.do(http.MethodPut, key, query, head, nil, func(resp *http.Response) error {
			var copied struct{ ETag string }
			err := xml.NewDecoder(resp.Body).Decode(&copied)
			etags[i] = copied.ETag
			return err
		})
	})
	if err != nil {
		return err
	}
	var body strings.Builder
	body.WriteString("<CompleteMultipartUpload>")
	for i, etag := range etags {
		fmt.Fprintf(&body, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, etag)
	}
	body.WriteString("</CompleteMultipartUpload>")
	return c.do(http.MethodPost, key, url.Values{"uploadId": {begun.UploadId}}, nil, []byte(body.String()), nil)
}

// each calls fn for 0 to n-1, some at once, and returns all errors.
func each(n, parallel int, fn func(int) error) error {
	var next atomic.Int64
	errs := make([]error, min(n, parallel))
	var work sync.WaitGroup
	for w := range errs {
		work.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = fn(i)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}
