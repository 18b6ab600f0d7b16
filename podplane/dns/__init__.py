"""The cluster's DNS, pure: objects of the API → records → answers as bytes; and what a node needs so that its pods reach their server."""
