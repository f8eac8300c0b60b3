# Serves the model repository, and asks the server: the steps that measure it run beside it.
ARG RELEASE
ARG BASE=nvcr.io/nvidia/tritonserver:${RELEASE}-py3
FROM ${BASE}
ARG PIP_INDEX_URL
ARG PIP_CERT
# NumPy of the base stays: Triton's Python backend needs it as it is.
COPY add_packages.py requirements.txt /opt/verdict/
RUN python3 /opt/verdict/add_packages.py --brought numpy --without torch /opt/verdict/requirements.txt
ENTRYPOINT ["bash", "-c", "exec \"$0\" \"$@\""]
COPY check_image.py /opt/verdict/
RUN python3 /opt/verdict/check_image.py tritonserver
